package main

// What can be wrong, by kind.

// category of a violation.
type category string

const (
	exitLost  category = "exit lost"  // nobody says how a process ended, though somebody must know
	exitWrong category = "exit wrong" // a status that is not the process's, or not always the same
	eventsBad category = "events"     // missing, twice, or out of order
	outputBad category = "output"     // bytes lost, changed, or twice
	leftOver  category = "left over"  // anything of a container that is gone
	hanging   category = "hang"       // a call or a container that does not come to its end
	refused   category = "refused"    // a call fails, or a write of a container, that nothing disturbed
	grown     category = "grown"      // a shim's descriptors
	crashed   category = "crash"      // a shim, or containerd, that ends by a fault of its own
)

var categories = []category{exitLost, exitWrong, eventsBad, outputBad, leftOver, hanging, refused, grown, crashed}

// violation is one thing that must not be.
type violation struct {
	Category  category
	Container string // "" for the round
	Text      string
}
