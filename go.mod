module github.com/keyvet/keyvet

go 1.26
