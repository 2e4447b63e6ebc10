package httpd

import (
	"net/http"
	"time"
)

const securityPage = "GET /.well-known/security.txt"

// securityTxtLife is how long clients may rely on what security.txt says (RFC 9116).
const securityTxtLife = 180 * 24 * time.Hour

// serveSecurityTxt says where people report vulnerabilities, if the operator has said so.
func (s *Server) serveSecurityTxt(w http.ResponseWriter, _ *http.Request) error {
	if s.cfg.SecurityContact == "" {
		return errPathNotFound()
	}
	writePlain(w, "Contact: "+s.cfg.SecurityContact+"\nExpires: "+time.Now().UTC().Add(securityTxtLife).Truncate(24*time.Hour).Format(time.RFC3339)+"\n")
	return nil
}
