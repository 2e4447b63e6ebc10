package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// handler serves the provider protocol.
type handler struct {
	payments      *store
	opts          options
	log           *slog.Logger
	posts, stored atomic.Int64
}

func newHandler(payments *store, o options, health http.Handler, log *slog.Logger) http.Handler {
	h := &handler{payments: payments, opts: o, log: log}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", health)
	mux.HandleFunc("POST /payments", h.post(h.charge))
	mux.HandleFunc("GET /payments/{id}", h.findPayment)
	mux.HandleFunc("POST /payments/{id}/refunds", h.post(h.refund))
	mux.HandleFunc("GET /payments/{id}/refunds/{refund}", h.findRefund)
	return mux
}

// declinedAmount are the last four digits of the minor units of a card that is declined: EUR 40.20.
const declinedAmount = 4020

// maxBody bounds a request, in bytes.
const maxBody = 64 << 10

// body is the body of both POSTs; refunds have no order number.
type body struct {
	ID          string `json:"id"`
	Amount      amount `json:"amount"`
	OrderNumber string `json:"orderNumber"`
	CallbackURL string `json:"callbackUrl"`
}

// post reads and checks a request, and misbehaves as the flags say.
func (h *handler) post(serve func(http.ResponseWriter, *http.Request, body)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(h.opts.slow)
		if n := h.posts.Add(1); h.opts.fail > 0 && n%int64(h.opts.fail) == 0 {
			h.refuse(w, http.StatusServiceUnavailable, "OVERLOADED", "told to fail by -fail")
			return
		}
		var in body
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			h.refuse(w, http.StatusBadRequest, "INVALID", "the body is no JSON object of the protocol")
			return
		}
		if in.ID == "" || r.Header.Get("Idempotency-Key") != in.ID || in.Amount.MinorUnits <= 0 || len(in.Amount.Currency) != 3 {
			h.refuse(w, http.StatusUnprocessableEntity, "INVALID", "an id that is the Idempotency-Key, and an amount above zero with its currency, are required")
			return
		}
		serve(w, r, in)
	}
}

func (h *handler) charge(w http.ResponseWriter, r *http.Request, in body) {
	e := entry{ID: in.ID, OrderNumber: in.OrderNumber, Amount: in.Amount, CallbackURL: in.CallbackURL}
	h.decide(&e)
	if in.Amount.MinorUnits%10_000 == declinedAmount {
		e.Status, e.Failure, e.Message = failed, "card_declined", "The card was declined."
	}
	stored, err := h.payments.charge(r.Context(), e, h.opts.instance)
	if n := h.stored.Add(1); err == nil && h.opts.dieAfter > 0 && n >= int64(h.opts.dieAfter) {
		h.log.Warn("dies as -die-after says", "payment", e.ID)
		os.Exit(137) // as by kill -9: nothing is answered and nothing drains
	}
	h.answer(w, stored, in.Amount, err)
}

func (h *handler) refund(w http.ResponseWriter, r *http.Request, in body) {
	e := entry{ID: in.ID, PaymentID: r.PathValue("id"), Amount: in.Amount, CallbackURL: in.CallbackURL}
	h.decide(&e)
	stored, err := h.payments.refund(r.Context(), e)
	h.answer(w, stored, in.Amount, err)
}

// decide says how a new payment or refund ends: at once, or later. A real provider asks a bank here.
func (h *handler) decide(e *entry) {
	e.Status, e.DueAt = succeeded, time.Now()
	if h.opts.late > 0 {
		e.Status, e.DueAt = pending, e.DueAt.Add(h.opts.late)
	}
}

func (h *handler) findPayment(w http.ResponseWriter, r *http.Request) {
	e, err := h.payments.payment(r.Context(), r.PathValue("id"))
	if errors.Is(err, errNotFound) {
		h.refuse(w, http.StatusNotFound, "PAYMENT_NOT_FOUND", "there is no such payment")
		return
	}
	h.answer(w, e, e.Amount, err)
}

func (h *handler) findRefund(w http.ResponseWriter, r *http.Request) {
	e, err := h.payments.refundOf(r.Context(), r.PathValue("id"), r.PathValue("refund"))
	if errors.Is(err, errNotFound) {
		h.refuse(w, http.StatusNotFound, "REFUND_NOT_FOUND", "there is no such refund")
		return
	}
	h.answer(w, e, e.Amount, err)
}

// state is a payment or refund as the protocol shows it.
type state struct {
	ID        string `json:"id"`
	PaymentID string `json:"paymentId,omitempty"`
	Status    string `json:"status"`
	Reference string `json:"reference"`
	Failure   string `json:"failure,omitempty"`
	Message   string `json:"message,omitempty"`
}

func (e entry) state() state {
	return state{e.ID, e.PaymentID, e.Status, e.Reference, e.Failure, e.Message}
}

// answer answers with what is stored. The amount of a repeated call must be the one that is stored.
func (h *handler) answer(w http.ResponseWriter, e entry, asked amount, err error) {
	switch {
	case errors.Is(err, errNotFound):
		h.refuse(w, http.StatusNotFound, "PAYMENT_NOT_FOUND", "there is no payment of this id and currency that has succeeded")
	case errors.Is(err, errTooMuch):
		h.refuse(w, http.StatusUnprocessableEntity, "INVALID", errTooMuch.Error())
	case err != nil:
		h.log.Error("a request failed", "error", err)
		h.refuse(w, http.StatusInternalServerError, "INTERNAL", "something went wrong on our side")
	case e.Amount != asked:
		h.refuse(w, http.StatusConflict, "AMOUNT_MISMATCH", "the id was used with another amount")
	case e.Status == pending:
		h.write(w, http.StatusAccepted, e.state())
	case e.Status == failed:
		h.write(w, http.StatusPaymentRequired, e.state())
	default:
		h.write(w, http.StatusOK, e.state())
	}
}

func (h *handler) refuse(w http.ResponseWriter, status int, code, message string) {
	h.write(w, status, map[string]string{"code": code, "message": message})
}

func (h *handler) write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Warn("an answer was not sent", "error", err)
	}
}
