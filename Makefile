# keyvet. `make test` and `make demo` need Go and a Debian-like system; what
# else they need they install, or say how to.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   ?= $(shell git rev-parse HEAD 2>/dev/null)
# Seconds since 1970: no clock that shows less can be right.
COMMIT_TIME ?= $(shell git log -1 --format=%ct 2>/dev/null)
SET       = -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X github.com/keyvet/keyvet/device.commitTime=$(COMMIT_TIME)
BUILD     = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
FLAGS     = cmd/keyvet/build.flags
GCFLAGS   = $(shell sed -n 's/^gcflags /-gcflags=/p' $(FLAGS))
DEVICE    = $(BUILD) -ldflags "$(SET) $(shell sed -n 's/^ldflags //p' $(FLAGS))" $(GCFLAGS)
HOST      = $(BUILD) -ldflags "$(SET) -s -w"

.DEFAULT_GOAL = build

# Packages that touch no hardware, no network and no other program: they run
# on every word size and byte order that a device may have.
PURE = ./device ./device/check ./device/keyfile ./device/gate ./device/agent \
       ./tpm/ekcert ./tpm/evidence ./tpm/advisory ./blocklist ./cmd/keyvet/internal/deflate
# GOOS is linux everywhere. NAME/GOARCH/VARIANT
TARGETS = amd64//  arm64// armv7/arm/GOARM=7 armv6/arm/GOARM=6 riscv64// mipsle//GOMIPS=softfloat 386//

.PHONY: help
help: ## this list; make without a target builds
	@sed -n 's/^\([a-z0-9][a-z0-9-]*\):[^#=]*## *\(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target text; do \
		printf '%s\n' "$$text" | fold -s -w 60 | sed 's/ *$$//' | { read -r line; printf '%-18s %s\n' "$$target" "$$line"; sed 's/^/                   /'; }; done

.PHONY: build aws-layer test lint golangci go-test test-386 test-arm test-qemu-user test-qemu-i2c cross demo bench fuzz blocklist verify-blocklist sample-blocklist verify-debian tools-test tools-demo clean

build: tools ## the programs, for this machine, into bin/
	$(DEVICE) -o bin/ ./cmd/keyvet

BIN = bin/
.PHONY: tools
tools: ## the programs that no device has, into bin/
	$(HOST) -o "$(BIN)" ./cmd/keyvet-blocklist ./cmd/keyvet-lab ./cmd/keyvet-fleet

PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
LIBDIR  ?= $(PREFIX)/lib
TOOLS    = keyvet keyvet-blocklist keyvet-fleet keyvet-lab
.PHONY: install
install: ## programs, man pages, completions and units below DESTDIR and PREFIX (/usr/local); builds what bin/ lacks
	@for p in $(TOOLS); do [ -x bin/$$p ] || exec $(MAKE) build; done
	@set -e; put() { install -D -m 644 "$$1" "$(DESTDIR)$$2"; }; \
	for p in $(TOOLS); do \
		install -D -m 755 bin/$$p "$(DESTDIR)$(BINDIR)/$$p"; \
		put docs/man/$$p.1 "$(MANDIR)/man1/$$p.1"; \
		put packaging/completions/$$p.bash "$(PREFIX)/share/bash-completion/completions/$$p"; \
		put packaging/completions/$$p.zsh "$(PREFIX)/share/zsh/site-functions/_$$p"; \
		put packaging/completions/$$p.fish "$(PREFIX)/share/fish/vendor_completions.d/$$p.fish"; \
	done; \
	put docs/man/keyvet.toml.5 "$(MANDIR)/man5/keyvet.toml.5"; \
	cd packaging/systemd; \
	for u in *.service *.target *.path; do \
		put $$u "$(LIBDIR)/systemd/system/$$u"; \
		sed -i 's|/usr/bin/keyvet|$(BINDIR)/keyvet|g' "$(DESTDIR)$(LIBDIR)/systemd/system/$$u"; \
	done; \
	put keyvet.sysusers "$(LIBDIR)/sysusers.d/keyvet.conf"; \
	put 60-keyvet.rules "$(LIBDIR)/udev/rules.d/60-keyvet.rules"; \
	for t in keyvet keyvet-state; do put $$t.tmpfiles "$(LIBDIR)/tmpfiles.d/$$t.conf"; done
	@echo 'installed. For the service: systemd-sysusers, systemd-tmpfiles --create, systemctl daemon-reload; then keyvet.toml(5)'

aws-layer: ## keyvet for the functions of docs/aws, which run on arm64
	GOOS=linux GOARCH=arm64 $(DEVICE) -o docs/aws/layer/bin/keyvet ./cmd/keyvet

test: tools-test lint check-units go-test test-386 test-arm sample-blocklist cross ## everything that CI runs

lint: ## gofmt, go vet, go mod tidy
	@test -z "$$(gofmt -l cmd device tpm mqtt blocklist packaging | tee /dev/stderr)"
	$(GO) vet ./...
	$(GO) mod tidy -diff

golangci: ## the linters of .golangci.yml; building them takes minutes
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.6.2 run ./...

# The benchmarks, too: each once, that it runs.
go-test: ## the Go tests of this machine
	$(GO) test -timeout 30m ./...
	$(GO) test -run '^$$' -bench . -benchtime 1x ./device/check ./blocklist

# Where the kernel runs no 386 programs they are emulated, and what starts a
# program of its own is left to go-test.
test-386: ## the same for a 32-bit machine, as far as it starts no program
	@set -e; exec=$$(GO='$(GO)' .ci/exec-386 bin/386); starts='^$$'; \
	[ -z "$$exec" ] || starts='^(TestHold|TestKill|TestOwned.*|TestPathsByOpenSSL)$$'; \
	run() { GOARCH=386 $(GO) test -timeout 30m $${exec:+-exec $$exec} "$$@"; }; set -x; \
	run -skip "$$starts" $(PURE) ./device/durable/... ./device/identity; \
	run ./device/rotate -sweep.stride 21; \
	run ./tpm/tis; \
	run -skip SDK ./mqtt/awsiot/localiot; \
	run $(GCFLAGS) -run SigningAllocations ./mqtt; \
	run -skip "$$starts" -run 'Published|Debian|Config|CommandLine|Own' ./cmd/keyvet ./cmd/keyvet/internal/config ./cmd/keyvet/internal/service

test-arm: ## the pure packages on the smallest device, under emulation
	.ci/qemu-user armv6 $(PURE)

test-qemu-user: tools-test ## the pure packages and keyvet check on the other architectures, under emulation
	.ci/qemu-user "armv7 arm64 mipsle riscv64" $(PURE)

test-qemu-i2c: tools-test ## the I2C driver on QEMU's model of a TPM; downloads a QEMU that has it, 36 MB
	.ci/qemu-i2c bin/qemu
	KEYVET_QEMU_I2C=$(CURDIR)/bin/qemu/qemu $(GO) test -run QEMU ./tpm

cross: ## the device binary for every architecture, into bin/
	@set -e; for t in $(TARGETS); do \
		name=$${t%%/*}; rest=$${t#*/}; arch=$${rest%%/*}; var=$${rest#*/}; \
		env GOOS=linux GOARCH=$${arch:-$$name} $$var $(DEVICE) -o bin/keyvet-linux-$$name ./cmd/keyvet; \
		printf '%-28s %9d bytes\n' keyvet-linux-$$name $$(stat -c %s bin/keyvet-linux-$$name); \
	done

demo: tools-demo ## good and bad devices, two rotations and a first contact, on a TPM emulator and a local AWS IoT endpoint
	@echo "building keyvet and keyvet-lab; the first time this takes minutes"
	@$(DEVICE) -o bin/ ./cmd/keyvet
	@$(HOST) -o bin/ ./cmd/keyvet-lab
	@bin/keyvet-lab demo -keyvet bin/keyvet

.PHONY: sweep
sweep: tools-demo ## power is cut at every point of a rotation of the real program, on a TPM emulator: half an hour
	$(GO) test -run '^TestSweep$$' -v -timeout 3h ./cmd/keyvet -sweep.stride 1 -sweep.beside 12

.PHONY: agreement
agreement: ## each byte of the samples flipped, through our verifier and that of go-tpm-tools: they must agree; an hour
	$(GO) test -run '^Test(Agreement|FlippedBytes)' -v -timeout 3h ./cmd/keyvet-fleet -agreement.whole

.PHONY: long-scripts
long-scripts: tools-demo ## what the shipped program does over minutes: the lockout counter of a TPM after three of them
	$(GO) test -tags longtest -run '^TestScripts$$' -count 1 -v ./cmd/keyvet

BENCHTIME ?= 1s
bench: tools-test ## the figures of docs/figures.md, each beside its peer; with BEFORE=COMMIT, this tree beside that one; and with LISTS=1 the lists alone
ifdef BEFORE
	@GO='$(GO)' LISTS='$(LISTS)' .ci/bench '$(BEFORE)' $(BENCHTIME)
else
	$(GO) test -timeout 1h -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem ./device/check ./blocklist ./tpm ./cmd/keyvet ./cmd/keyvet-fleet
	$(GO) test -run '^$$' -bench 'Near|Factor|RSA|OneByOne' -benchtime $(BENCHTIME) ./blocklist/debian
	$(GO) test -run '^$$' -bench Hunt -benchtime 1x ./blocklist/debian
	GOARCH=arm GOARM=7 CGO_ENABLED=0 $(GO) test -exec qemu-arm-static -run '^$$' -bench 'Lookup/.*/hit' ./blocklist
endif

FUZZTIME ?= 60s
fuzz: ## every parser of outside bytes, FUZZTIME each
	@GO="$(GO)" .ci/fuzz $(FUZZTIME)

RUNS ?= 200
SEED ?= 0
.PHONY: chaos
chaos: ## RUNS of the agent through random faults, from SEED on (0: any); `make test` has 40
	$(GO) test -run '^TestChaos$$' -count 1 -timeout 30m -v ./cmd/keyvet -chaos $(RUNS) -chaos.beside 60 -seed $(SEED)

.PHONY: corpora
corpora: ## keyvet and OpenSSL over public collections of strange certificates and keys; downloads 130 MB, see docs/corpora.md
	packaging/corpora/fetch bin/.corpora
	$(GO) run ./packaging/corpora bin/.corpora

.PHONY: documents
documents: ## writes what is made of the code: findings.md, configuration.md, man pages, completions
	$(GO) test -count=1 -run '^(TestFindings|TestDocuments|TestTexts|TestHelp)$$' ./cmd ./cmd/keyvet/internal/config ./cmd/keyvet/internal/image ./cmd/keyvet ./cmd/keyvet-blocklist ./cmd/keyvet-fleet ./cmd/keyvet-lab -update

.PHONY: picture
picture: tools-demo ## docs/terminal.svg, from what the commands of the quick start print
	$(GO) test -count=1 ./cmd -run '^TestFences$$' -picture

.PHONY: conditions
conditions: ## takes each condition of docs/security.md out, one at a time, and puts mistakes into the drivers; a test must fail
	$(GO) test ./cmd -run '^TestConditions$$' -conditions -timeout 2h -v
	$(GO) test ./tpm/tis -run '^TestMutations$$' -mutations -timeout 1h

DATA ?= ../shared/data/debian/sets
# Keys whose private half is public, and the classes of them that are in the binary.
KEYS ?= ../shared/data/compromised/compromised.tsv.xz
FIRMWARE = uefi-pk,intel-leak,firmware-dev,firmware-image,ssh-default
REST = test-suite,rfc,web,package,git
PUBLISHED = -cite https://badkeys.info/ -licence "none needed: fingerprints and names are facts"

LISTS_BY = $(GO) run -tags keyvet_noblocklist ./cmd/keyvet-blocklist

blocklist: ## the built-in blocklist, from the complete sets of weak keys in DATA and the published ones in KEYS, and the further list
	xz -dc $(KEYS) | $(LISTS_BY) build -out blocklist/embedded.kvf -data $(DATA) -sets rsa2048,rsa2048-ssh,rsa4096,p256,p384 \
		-keys /dev/stdin -classes $(FIRMWARE) -set firmware-keys -name "keys published in firmware" $(PUBLISHED)
	sha256sum blocklist/embedded.kvf | cut -c 1-64 >blocklist/embedded.sha256
	xz -dc $(KEYS) | $(LISTS_BY) build -out blocklist/compromised.kvf \
		-keys /dev/stdin -classes $(REST) -set published-keys -name "keys published elsewhere" $(PUBLISHED)

# Where sets are made that DATA does not have.
MADE ?= bin/sets
.PHONY: further-lists
further-lists: ## the further list of Debian's weak keys: RSA-1024 from DATA, the others from nothing, hours of a core, resumed from bin/sets
	set -e; for set in rsa1024-ssh rsa3072 rsa3072-ssh; do $(LISTS_BY) generate -set $$set -out $(MADE); done
	$(LISTS_BY) generate -set rsa4096 -origins be32-rnd,be32-noreadrnd,be32-nornd -out $(MADE)
	$(LISTS_BY) build -data $(MADE) -sets rsa1024-ssh,rsa3072,rsa3072-ssh,rsa4096 -out $(MADE)/made.kvf
	$(LISTS_BY) build -data $(DATA) -sets rsa1024,p521 -from $(MADE)/made.kvf -out blocklist/further.kvf

.PHONY: verify-published
verify-published: ## every key of KEYS is found with its name, none is with one bit changed, none of a million at random and of Debian's CAs
	xz -dc $(KEYS) >bin/keys.tsv
	$(GO) test ./blocklist -run '^(TestPublished|TestGoodCertificates)$$' -v -args -keys $(CURDIR)/bin/keys.tsv

verify-blocklist: ## every key of DATA is in the built-in list with its seed, and a million others are not: a quarter of an hour
	$(GO) run ./cmd/keyvet-blocklist verify -data $(DATA) -random 1000000 embedded

SAMPLE ?= 60
sample-blocklist: ## as many weak keys of each set, regenerated from random seeds, are in the built-in list
	$(GO) run ./cmd/keyvet-blocklist verify -sample $(SAMPLE) -random 100000 embedded

verify-debian: ## the generator agrees with the vectors and the sets beside DATA: an hour
	KEYVET_DEBIAN_DATA=$(abspath $(DATA)/..) $(GO) test -tags longtest -timeout 0 -v -run 'AllVectors|Sets' ./blocklist/debian

.PHONY: thorough
thorough: ## what keyvet check -thorough does, over all seeds: the RSA-3072 vectors, five keys of odd sizes and one of each curve in one pass; an hour of a core or two, resumed from bin/thorough.json
	mkdir -p bin
	KEYVET_DEBIAN_DATA=$(abspath $(DATA)/..) $(GO) test ./blocklist/debian -run '^TestHunt$$' -v -timeout 0 -args -whole -state $(CURDIR)/bin/thorough.json

# What targets need of Debian: command or file, and the package that has it.
NEED_DEMO = swtpm=swtpm swtpm_setup=swtpm-tools swtpm_localca=swtpm-tools
NEED_TEST = $(NEED_DEMO) mosquitto=mosquitto mosquitto_pub=mosquitto-clients tinyproxy=tinyproxy-bin \
	qemu-arm-static=qemu-user-static qemu-system-arm=qemu-system-arm \
	openssl=openssl /usr/share/ca-certificates/mozilla/Amazon_Root_CA_1.crt=ca-certificates \
	tpm2_getcap=tpm2-tools '/usr/lib/*/ossl-modules/tpm2.so=tpm2-openssl' \
	node=nodejs npm=npm python3=python3 systemd-analyze=systemd git=git

tools-test:
	@GO='$(GO)' .ci/need $(NEED_TEST)

tools-demo:
	@GO='$(GO)' .ci/need $(NEED_DEMO)

# Packages, units and the Yocto layer: packaging/README.md.
.PHONY: release test-release test-packages test-units check-units check-layer

release: ## .deb and .rpm of keyvet and of keyvet-tools, bare binaries, SBOMs and their checksums into dist/
	packaging/release

test-release: ## two releases of this commit, in two folders, have the same checksums
	packaging/test-release

test-packages: ## install, upgrade, remove and purge what is in dist/, in a Debian of its own; as root
	@GO='$(GO)' .ci/need debootstrap=debootstrap
	packaging/test-packages bin/packages

test-units: ## boot systemd with what is in dist/ and move the gate; as root
	@GO='$(GO)' .ci/need debootstrap=debootstrap systemd-nspawn=systemd-container
	packaging/test-units bin/packages

.PHONY: test-quick-start
test-quick-start: ## docs/quick-start.md by an ordinary user in a copy of the Debian in ROOT; as root
	packaging/test-quick-start $(ROOT)

check-layer: ## of a release, whose recipe is pinned: the commit that it builds is as this one
	git diff --exit-code --stat $$(sed -n 's/^SRCREV ?= "\(.*\)"/\1/p' yocto/meta-keyvet/recipes-security/keyvet/keyvet_git.bb) HEAD -- go.mod go.sum '*.go' packaging/systemd

check-units: ## systemd's own opinion of the units
	@GO='$(GO)' .ci/need systemd-analyze=systemd
	packaging/check-units

# A whole machine: docs/e2e.md.
E2E_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keyvet-e2e
.PHONY: e2e
e2e: tools-demo ## whole machines in QEMU with a TPM, systemd and keyvet's package; as root
	@GO='$(GO)' .ci/need qemu-system-x86_64=qemu-system-x86 qemu-system-aarch64=qemu-system-arm mke2fs=e2fsprogs \
		mmdebstrap=mmdebstrap arch-test=arch-test qemu-aarch64-static=qemu-user-static update-binfmts=binfmt-support \
		/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd=ovmf sbsign=sbsigntool mcopy=mtools
	DIST=bin/e2e TARGETS='amd64// arm64//' packaging/release
	KEYVET_E2E_AMD64=$$(e2e/image $(E2E_CACHE) bin/e2e/keyvet_*_amd64.deb) && export KEYVET_E2E_AMD64 && \
	KEYVET_E2E_ARM64=$$(e2e/image $(E2E_CACHE) bin/e2e/keyvet_*_arm64.deb) && export KEYVET_E2E_ARM64 && \
		$(GO) test -tags e2e -count 1 -timeout 60m -v -artifacts -outputdir $(CURDIR)/bin/e2e ./e2e

clean: ## removes bin/ and dist/
	rm -rf bin dist
