module github.com/keyvet/keyvet

go 1.26

require github.com/titanous/rocacheck v0.0.0-20171023193734-afe73141d399
