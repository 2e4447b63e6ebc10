// Package overload proves that a node under more load than it can serve, whose database stops answering
// for a moment, refuses what is too much, keeps its live connections and credentials, and is back
// as soon as the database is: there is no state in which the load keeps it slow.
package overload
