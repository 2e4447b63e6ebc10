package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Times of callbacks.
const (
	callbackInterval = 200 * time.Millisecond // between two looks for what is due
	callbackTimeout  = 10 * time.Second       // of one call
	callbackTries    = 50                     // with the pauses below: about two days
	longestPause     = time.Hour
)

// parseSecret reads a secret as Standard Webhooks writes it.
func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 {
		return nil, errors.New("PAYMENT_CALLBACK_SECRET must be whsec_ and at least 24 bytes in base64")
	}
	return key, nil
}

// sign returns the signature of Standard Webhooks (https://www.standardwebhooks.com).
func sign(secret []byte, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// callbackBody returns the message that tells the outcome.
func callbackBody(e entry, at time.Time) ([]byte, error) {
	kind := "payment.updated"
	if e.PaymentID != "" {
		kind = "refund.updated"
	}
	return json.Marshal(map[string]any{"type": kind, "timestamp": at.UTC().Format(time.RFC3339), "data": e.state()})
}

// sendCallbacks finishes what is due and delivers callbacks until ctx is cancelled, at least once each.
func sendCallbacks(ctx context.Context, payments *store, secret []byte, log *slog.Logger) {
	tick := time.NewTicker(callbackInterval)
	defer tick.Stop()
	for {
		if err := sendDue(ctx, payments, secret, log); err != nil && ctx.Err() == nil {
			log.Error("callbacks wait", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func sendDue(ctx context.Context, payments *store, secret []byte, log *slog.Logger) error {
	if err := payments.finishDue(ctx, time.Now()); err != nil || secret == nil {
		return err
	}
	due, err := payments.takeCallbacks(ctx, time.Now(), 3*callbackTimeout)
	if err != nil {
		return err
	}
	for _, o := range due {
		err := sendCallback(ctx, o, secret)
		switch {
		case err == nil:
			err = payments.dropCallback(ctx, o.ID)
		case o.Tries >= callbackTries:
			log.Error("a callback is given up", "id", o.ID, "error", err)
			err = payments.dropCallback(ctx, o.ID)
		default:
			log.Warn("a callback is sent again later", "id", o.ID, "error", err)
			pause := min(longestPause, time.Second<<min(o.Tries, 12))
			err = payments.retryCallback(ctx, o.ID, time.Now().Add(pause))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendCallback sends a callback, signed with the time of this try. Its id stays, so that Backplane drops repeats.
func sendCallback(ctx context.Context, o outgoing, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callbackTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(o.Body))
	if err != nil {
		return err
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Webhook-Id", o.ID)
	r.Header.Set("Webhook-Timestamp", timestamp)
	r.Header.Set("Webhook-Signature", sign(secret, o.ID, timestamp, o.Body))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
