SUMMARY = "Vets a device's own keys before the device trusts them"
DESCRIPTION = "Reads the keys of the TPM and the certificates and keys of the device, \
tests each for ROCA, Debian's weak keys, affected TPM firmware and more, reports to \
AWS IoT, and opens a gate once the report is acknowledged."
HOMEPAGE = "https://github.com/keyvet/keyvet"
BUGTRACKER = "https://github.com/keyvet/keyvet/issues"
SECTION = "base"
MAINTAINER = "The keyvet authors <keyvet@users.noreply.github.com>"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://src/${GO_IMPORT}/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

PV = "0.1.0+git"
# The newest commit; a release pins its own.
SRCREV ?= "${AUTOREV}"
SRC_URI = "git://github.com/keyvet/keyvet.git;protocol=https;branch=main;destsuffix=${GO_SRCURI_DESTSUFFIX}"
# What go.mod asks for, and under which licences.
require ${BPN}-go-mods.inc
require ${BPN}-licenses.inc

GO_IMPORT = "github.com/keyvet/keyvet"
GO_INSTALL = "${GO_IMPORT}/cmd/keyvet"
# Of the build host also what writes the configuration of an image and checks it.
GO_INSTALL:append:class-native = " ${GO_IMPORT}/cmd/keyvet/internal/image"

inherit go-mod systemd update-rc.d useradd

# One static binary: no cgo, no interpreter, nothing shared.
export CGO_ENABLED = "0"
GO_LINKSHARED = ""
GO_LINUXLOADER = ""
# What is in $() or begins with $ is the shell's, which has the source: the flags
# stand in a file of it, and SOURCE_DATE_EPOCH is the time of its commit.
KEYVET_SRC = "${S}/src/${GO_IMPORT}"
KEYVET_FLAGS = "${KEYVET_SRC}/cmd/keyvet/build.flags"
GO_EXTRA_LDFLAGS = "-X main.version=${PV} -X main.commit=$(git -C ${KEYVET_SRC} rev-parse HEAD) -X ${GO_IMPORT}/device.commitTime=$SOURCE_DATE_EPOCH $(sed -n 's/^ldflags //p' ${KEYVET_FLAGS})"
GOBUILDFLAGS:remove = "-buildmode=pie"
GOBUILDFLAGS:append = " -buildvcs=false $(sed -n 's/^gcflags /-gcflags=/p' ${KEYVET_FLAGS}) ${PACKAGECONFIG_CONFARGS}"

# The list of Debian's weak keys, 4.0 MB: in the binary, or as a file of its own.
PACKAGECONFIG ??= "blocklist-builtin"
PACKAGECONFIG[blocklist-builtin] = ",-tags=keyvet_noblocklist,,,,blocklist-file"
PACKAGECONFIG[blocklist-file] = ",,,${PN}-blocklist"

do_install() {
    src=${S}/src/${GO_IMPORT}
    install -D -m 0755 ${B}/${GO_BUILD_BINDIR}/keyvet ${D}${bindir}/keyvet
    install -D -m 0644 $src/docs/man/keyvet.1 ${D}${mandir}/man1/keyvet.1
    install -D -m 0644 $src/docs/man/keyvet.toml.5 ${D}${mandir}/man5/keyvet.toml.5
    install -D -m 0644 $src/packaging/completions/keyvet.bash ${D}${datadir}/bash-completion/completions/keyvet
    install -D -m 0644 $src/packaging/completions/keyvet.zsh ${D}${datadir}/zsh/site-functions/_keyvet
    install -D -m 0644 $src/packaging/completions/keyvet.fish ${D}${datadir}/fish/vendor_completions.d/keyvet.fish
    install -D -m 0644 $src/blocklist/embedded.kvf ${D}${datadir}/keyvet/debian.kvf
    install -D -m 0644 $src/blocklist/compromised.kvf ${D}${datadir}/keyvet/compromised.kvf
    install -D -m 0644 $src/blocklist/further.kvf ${D}${datadir}/keyvet/further.kvf
    for page in configuration operations rotation findings systemd troubleshooting; do
        install -D -m 0644 $src/docs/$page.md ${D}${docdir}/keyvet/$page.md
    done
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        for unit in keyvet.service keyvet-trusted.target keyvet-trusted.path keyvet-shut.path keyvet-shut.target keyvet-state@.service; do
            install -D -m 0644 $src/packaging/systemd/$unit ${D}${systemd_system_unitdir}/$unit
        done
        install -D -m 0644 $src/packaging/systemd/keyvet.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/keyvet.conf
    fi
    install -D -m 0755 $src/packaging/sysvinit/keyvet ${D}${sysconfdir}/init.d/keyvet
    install -D -m 0644 $src/packaging/systemd/60-keyvet.rules ${D}${nonarch_base_libdir}/udev/rules.d/60-keyvet.rules
}
do_install:class-native() {
    install -D -m 0755 ${B}/${GO_BUILD_BINDIR}/keyvet ${D}${bindir}/keyvet
    install -D -m 0755 ${B}/${GO_BUILD_BINDIR}/image ${D}${bindir}/keyvet-image
}

SYSTEMD_SERVICE:${PN} = "keyvet.service"
# sysvinit and busybox's init; with systemd alone the class removes it.
INITSCRIPT_NAME = "keyvet"
INITSCRIPT_PARAMS = "start 60 2 3 4 5 . stop 40 0 1 6 ."

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system tss"
USERADD_PARAM:${PN} = "--system --user-group --groups tss --no-create-home --home-dir ${localstatedir}/lib/keyvet --shell ${base_sbindir}/nologin keyvet"

PACKAGE_BEFORE_PN = "${PN}-blocklist ${PN}-compromised ${PN}-further ${PN}-completions"
FILES:${PN}-blocklist = "${datadir}/keyvet/debian.kvf"
FILES:${PN}-compromised = "${datadir}/keyvet/compromised.kvf"
FILES:${PN}-further = "${datadir}/keyvet/further.kvf"
FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d ${nonarch_base_libdir}/udev/rules.d"
FILES:${PN}-completions = "${datadir}/bash-completion ${datadir}/zsh ${datadir}/fish"
SUMMARY:${PN}-completions = "keyvet's completions for bash, zsh and fish"
SUMMARY:${PN}-compromised = "keyvet's list of 81,000 keys whose private half is public"
SUMMARY:${PN}-further = "keyvet's further list of Debian's weak keys: RSA-1024, RSA-3072, RSA-4096 (be32), P-521"
SUMMARY:${PN}-blocklist = "keyvet's list of Debian's weak keys as a file"

RRECOMMENDS:${PN}:class-target = "virtual-keyvet-conf ca-certificates"

BBCLASSEXTEND = "native"
