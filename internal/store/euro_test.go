package store_test

import "backplane/internal/money"

func euro(minor int64) money.Money { return money.Money{Minor: minor, Currency: "EUR"} }
