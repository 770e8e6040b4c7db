module github.com/keyvet/keyvet

go 1.26

require (
	github.com/bits-and-blooms/bloom/v3 v3.7.1
	github.com/rogpeppe/go-internal v1.16.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.2 // indirect
	golang.org/x/sys v0.26.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
)
