// Package admin proves that the admin listener shows the metrics of the node.
package admin
