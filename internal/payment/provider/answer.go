package provider

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// amount is money in the protocol: a whole number of the currency's minor units, so that no program
// rounds it.
type amount struct {
	MinorUnits int64  `json:"minorUnits"`
	Currency   string `json:"currency"`
}

func amountOf(m money.Money) amount { return amount{m.Minor, m.Currency} }

type chargeBody struct {
	ID          uid.Payment `json:"id"`
	Amount      amount      `json:"amount"`
	OrderNumber string      `json:"orderNumber"`
	CallbackURL string      `json:"callbackUrl,omitempty"`
}

type refundBody struct {
	ID          payment.RefundID `json:"id"`
	Amount      amount           `json:"amount"`
	Reason      string           `json:"reason,omitempty"`
	CallbackURL string           `json:"callbackUrl,omitempty"`
}

// State is a payment or a refund as a provider states it: in answers, and as the data of callbacks.
type State struct {
	ID        string               `json:"id"`
	Status    payment.AnswerStatus `json:"status"`
	Reference string               `json:"reference"`
	Failure   string               `json:"failure"`
	Message   string               `json:"message"`
}

// Bounds of texts that a provider states, in bytes; longer ones are cut.
const (
	maxReference = 200
	maxFailure   = 64
	maxMessage   = 500
)

// Answer returns what the state says, for storing; ok is false if its status is none of the protocol.
func (s State) Answer() (_ payment.Answer, ok bool) {
	switch s.Status {
	case payment.AnswerPending, payment.AnswerSucceeded, payment.AnswerFailed:
	default:
		return payment.Answer{}, false
	}
	a := payment.Answer{Status: s.Status, Reference: plainText(s.Reference, maxReference), Message: plainText(s.Message, maxMessage)}
	if s.Status == payment.AnswerFailed {
		if a.Failure = plainText(s.Failure, maxFailure); a.Failure == "" {
			a.Failure = "declined"
		}
	}
	return a, true
}

// plainText returns the text as one line without control characters, cut to so many bytes.
func plainText(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > limit {
		for limit > 0 && !utf8.RuneStart(text[limit]) {
			limit--
		}
		text = text[:limit]
	}
	return strings.TrimSpace(text)
}

// errorCode is how a provider says in the body of an error what is wrong.
type errorCode string

const (
	codePaymentNotFound errorCode = "PAYMENT_NOT_FOUND"
	codeRefundNotFound  errorCode = "REFUND_NOT_FOUND"
	codeAmountMismatch  errorCode = "AMOUNT_MISMATCH" // the id was used with another amount
)

// errorBody is the body of an answer that is an error.
type errorBody struct {
	Code    errorCode `json:"code"`
	Message string    `json:"message"`
}

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 64 << 10

// readAnswer reads a response. What it cannot prove to be an answer, or a refusal, leaves the outcome
// unknown.
func (c *call) readAnswer(resp *http.Response) (payment.Answer, *failure) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	status := resp.StatusCode
	switch {
	case err != nil:
		return payment.Answer{}, &failure{sent: true, elsewhere: true, message: "the connection broke off within the answer", err: err}
	case len(body) > maxAnswer:
		return payment.Answer{}, &failure{sent: true, message: fmt.Sprintf("the answer has more than %d bytes", maxAnswer)}
	case status == http.StatusOK, status == http.StatusCreated, status == http.StatusAccepted, status == http.StatusPaymentRequired:
		return c.decodeState(status, body)
	}
	return payment.Answer{}, c.decodeError(status, body)
}

// decodeState reads the payment or refund. It must have the id of the request: an answer for another
// one, or of a program that is no payment provider, proves nothing. Status 402 is a decline only with
// such a body, as hosts and proxies use it for bills of their own.
func (c *call) decodeState(status int, body []byte) (payment.Answer, *failure) {
	var s State
	if err := json.Unmarshal(body, &s); err != nil || s.ID != c.req.id {
		return payment.Answer{}, &failure{sent: true, message: fmt.Sprintf("status %d with a body that does not name the payment", status), err: err}
	}
	a, ok := s.Answer()
	if !ok || status == http.StatusPaymentRequired && a.Status != payment.AnswerFailed {
		return payment.Answer{}, &failure{sent: true, message: fmt.Sprintf("status %d with a payment status that does not fit", status)}
	}
	return a, nil
}

// decodeError returns the failure that the status of an error stands for.
func (c *call) decodeError(status int, body []byte) *failure {
	var e errorBody
	_ = json.Unmarshal(body, &e) // without a body that can be read the status remains
	f := &failure{message: fmt.Sprintf("status %d", status), healthy: true}
	if text := plainText(e.Message, maxMessage); text != "" {
		f.message += ": " + text
	}
	switch {
	case status >= http.StatusInternalServerError:
		f.sent, f.healthy = true, false
		f.elsewhere = status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
	case status == http.StatusTooManyRequests:
		f.message = "the provider asks to slow down: " + f.message
	case status == http.StatusNotFound && c.req.absent != "" && (e.Code == c.req.absent || e.Code == codePaymentNotFound):
		f.absent = true
	case status == http.StatusConflict && e.Code != codeAmountMismatch, status == http.StatusRequestTimeout, status < http.StatusBadRequest:
		f.sent = true // it may be under way, or done
	default:
		f.message = "the provider refuses the request: " + f.message
	}
	return f
}
