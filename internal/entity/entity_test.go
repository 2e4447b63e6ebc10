package entity

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestDeclare_refuses(t *testing.T) { //nolint:paralleltest // it declares an entity
	taken := map[string]*fault.Error{"coupons.code": fault.New(fault.BadInput, "Taken.")}
	Declare(Declaration{Name: "coupon", Kind: uid.KindProduct, Unique: taken})
	t.Cleanup(func() { delete(declared, "coupon") })
	for name, d := range map[string]Declaration{
		"no name":              {Kind: uid.KindOrder},
		"a name twice":         {Name: "coupon"},
		"a kind of id twice":   {Name: "voucher", Kind: uid.KindProduct},
		"an unknown kind":      {Name: "voucher", Kind: "vch"},
		"a column twice":       {Name: "voucher", Unique: taken},
		"a code twice":         {Name: "voucher", Codes: []fault.Meaning{{Code: fault.BadInput, Kind: fault.KindInvalid, Sentence: "No."}}},
		"a code of no meaning": {Name: "voucher", Codes: []fault.Meaning{{Code: "VOUCHER_TAKEN"}}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Declare accepts %s", name)
				}
			}()
			Declare(d)
		}()
	}
	if got := UniqueColumns()["coupons.code"]; got != taken["coupons.code"] {
		t.Errorf("the error of the column is %v", got)
	}
}
