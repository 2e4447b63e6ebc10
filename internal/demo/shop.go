package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/user"
)

// Account is a created account with its password, which is printed once and not
// stored.
type Account struct {
	Username string
	Password string
	Roles    []auth.Role
}

// shopOrders is the number of orders of the shop.
const shopOrders = 300

// shopUsers are the users of the shop, the first of each role first.
var shopUsers = []struct {
	username, name string
	role           auth.Role
}{
	{"ada", "Ada Lindqvist", auth.Admin},
	{"stan", "Stan Okafor", auth.Staff},
	{"carol", "Carol Duarte", auth.Customer},
	{"robot", "Warehouse robot", auth.Service},
	{"yusuf", "Yusuf Demir", auth.Customer},
	{"mei", "Mei Tanaka", auth.Customer},
	{"jonas", "Jonas Weber", auth.Customer},
	{"priya", "Priya Raman", auth.Customer},
	{"lucia", "Lucía Ferrer", auth.Customer},
	{"tom", "Tom Ashby", auth.Customer},
	{"nora", "Nora Haugen", auth.Customer},
	{"sofia", "Sofia Marchetti", auth.Staff},
}

// shopProducts are the products of the shop: SKU, name, price in cents, stock. Lists show the last ones first, so those that are
// scarce, sold out or hidden come first.
var shopProducts = []struct {
	sku, name    string
	price, stock int
}{
	{"HONEY", "Heather honey", 990, 3}, {"MOLD", "Springform pan", 1990, 5}, {"SIEVE", "Flour sieve", 1490, 0}, {"CANDLE", "Beeswax candle", 690, 150},
	{"MUG-BLUE", "Blue mug", 1290, 400}, {"MUG-WHITE", "White mug", 1190, 400}, {"TEAPOT", "Cast iron teapot", 4900, 120},
	{"KETTLE", "Enamel kettle", 5450, 90}, {"BOWL-S", "Small bowl", 890, 300}, {"BOWL-L", "Salad bowl", 2490, 150},
	{"PLATE", "Stoneware plate", 1450, 350}, {"KNIFE-CHEF", "Chef's knife", 8900, 60}, {"KNIFE-BREAD", "Bread knife", 4490, 80},
	{"BOARD", "Oak cutting board", 3600, 110}, {"PAN-24", "Frying pan, 24 cm", 5900, 75}, {"PAN-28", "Frying pan, 28 cm", 6900, 75},
	{"POT-3L", "Stock pot, 3 l", 7900, 50}, {"WHISK", "Balloon whisk", 950, 200}, {"SPOON", "Beech spoon", 490, 500},
	{"LADLE", "Soup ladle", 1150, 180}, {"GRATER", "Fine grater", 1890, 140}, {"PEELER", "Swivel peeler", 790, 260},
	{"SCALE", "Kitchen scale", 3990, 70}, {"TIMER", "Egg timer", 1290, 160}, {"APRON", "Linen apron", 3490, 130},
	{"TOWEL", "Tea towel, set of three", 1990, 220}, {"CARAFE", "Glass carafe", 2790, 100}, {"GLASS-W", "Wine glass", 1390, 320},
	{"GLASS-T", "Tumbler", 690, 420}, {"JAR-1L", "Preserving jar, 1 l", 590, 380}, {"BASKET", "Bread basket", 1690, 90},
	{"MILL-P", "Pepper mill", 2990, 85}, {"MILL-S", "Salt mill", 2990, 85}, {"TRAY", "Serving tray", 2290, 95},
	{"PRESS", "Coffee press", 3290, 105}, {"GRINDER", "Hand coffee grinder", 4690, 65}, {"FILTER", "Coffee filters, 100", 450, 600},
	{"BEANS", "Coffee beans, 1 kg", 2190, 240}, {"TEA-GREEN", "Green tea, 250 g", 1590, 210}, {"TEA-BLACK", "Black tea, 250 g", 1390, 210},
}

// FillShop fills an empty database with a small shop: users of each role, products,
// some of them scarce, sold out or hidden, and orders in all states. hash
// hashes passwords. It returns the accounts, or none and changes nothing if the
// database is not empty.
func FillShop(ctx context.Context, db Store, hash Hasher) ([]Account, error) {
	err := requireEmpty(ctx, db)
	if errors.Is(err, ErrNotEmpty) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g := newGenerator(1)
	accounts, err := g.addShopUsers(hash)
	if err != nil {
		return nil, err
	}
	for i, p := range shopProducts {
		if err := g.addProduct(order.ProductInput{
			SKU: p.sku, Name: p.name, Description: p.name + ". Made to be used every day.", Stock: p.stock,
			Price: money.Money{Minor: int64(p.price), Currency: "EUR"}, Active: p.sku != "CANDLE",
		}, openedAt.Add(time.Hour+time.Duration(i)*time.Minute)); err != nil {
			return nil, err
		}
	}
	for i := range shopOrders {
		at := openedAt.Add(24*time.Hour + time.Duration(i)*7*time.Hour + time.Duration(g.rnd.IntN(3600))*time.Second)
		if err := g.addOrder(at, 1+g.rnd.IntN(5)); err != nil {
			return nil, err
		}
	}
	if err := g.storeBatch(ctx, db); err != nil {
		return nil, fmt.Errorf("store the demo shop: %w", err)
	}
	return accounts, nil
}

func (g *generator) addShopUsers(hash Hasher) ([]Account, error) {
	var accounts []Account
	for i, p := range shopUsers {
		password := strings.ToLower(rand.Text())[:16] // 80 random bits
		hashed, err := hash(password)
		if err != nil {
			return nil, fmt.Errorf("hash a password of the demo shop: %w", err)
		}
		email := p.username + "@example.com"
		u, err := g.addUser(user.Profile{Username: p.username, Email: &email, Name: p.name}, openedAt.Add(time.Duration(i)*time.Minute), user.PasswordHash(hashed), p.role)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, Account{u.Username, password, u.Roles})
	}
	return accounts, nil
}
