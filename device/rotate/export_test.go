package rotate

// ParseChain is parseChain, for its fuzz target.
var ParseChain = parseChain
