SUMMARY = "Configuration of keyvet"
DESCRIPTION = "Writes keyvet.toml, and what systemd and udev have to know of it, from variables. \
A product may replace this recipe by its own that provides virtual-keyvet-conf."
HOMEPAGE = "https://github.com/keyvet/keyvet"
SECTION = "base"
MAINTAINER = "The keyvet authors <keyvet@users.noreply.github.com>"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# The README of the layer says what each is. What is left out has keyvet's default;
# every value is held to keyvet's own rules in do_compile.
KEYVET_ENDPOINTS ?= ""
KEYVET_THING_NAME ?= ""
KEYVET_CA_FILE ?= ""
KEYVET_PINS ?= ""
KEYVET_PROXY ?= ""
KEYVET_TPM_ADDRESS ?= "${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', '/dev/tpmrm0', '', d)}"
KEYVET_TPM_GROUP ?= ""
KEYVET_STATE_DIR ?= "${localstatedir}/lib/keyvet"
KEYVET_GATE ?= ""
KEYVET_IDENTITY_CERTIFICATE ?= ""
KEYVET_IDENTITY_KEY ?= ""
KEYVET_IDENTITY_CA ?= ""
KEYVET_CHECK_FILES ?= ""
KEYVET_CHECK_BLOCKLISTS ?= ""
KEYVET_CHECK_ADVISORIES ?= ""
KEYVET_CHECK_EK_ROOTS ?= ""
KEYVET_CHECK_CRLS ?= ""
KEYVET_CHECK_MAX_AGE ?= ""
KEYVET_PROVISION_TEMPLATE ?= ""
KEYVET_PROVISION_PARAMETERS ?= ""
KEYVET_CLAIM_CERTIFICATE ?= ""
KEYVET_CLAIM_KEY ?= ""
KEYVET_DELETE_CLAIM ?= "0"
KEYVET_ROTATE_ISSUER ?= ""
KEYVET_ROTATE_TEMPLATE ?= ""
KEYVET_ROTATE_KEY ?= ""
KEYVET_ROTATE_KEYS ?= ""
KEYVET_ROTATE_BEFORE ?= ""
KEYVET_ROTATE_GRACE ?= ""
KEYVET_ROTATE_MIN_INTERVAL ?= ""
# Fragments of the product's own, as SRC_URI takes them: "file://50-product.toml".
KEYVET_CONF_EXTRA ?= ""
# "1": what keyvet run needs besides comes by a fragment of another package, or of
# the device.
KEYVET_PARTIAL ?= "0"

KEYVET_VARIABLES = "\
    KEYVET_ENDPOINTS KEYVET_THING_NAME KEYVET_CA_FILE KEYVET_PINS KEYVET_PROXY KEYVET_TPM_ADDRESS KEYVET_TPM_GROUP KEYVET_STATE_DIR KEYVET_GATE \
    KEYVET_IDENTITY_CERTIFICATE KEYVET_IDENTITY_KEY KEYVET_IDENTITY_CA \
    KEYVET_CHECK_FILES KEYVET_CHECK_BLOCKLISTS KEYVET_CHECK_ADVISORIES KEYVET_CHECK_EK_ROOTS KEYVET_CHECK_CRLS KEYVET_CHECK_MAX_AGE \
    KEYVET_PROVISION_TEMPLATE KEYVET_PROVISION_PARAMETERS KEYVET_CLAIM_CERTIFICATE KEYVET_CLAIM_KEY KEYVET_DELETE_CLAIM \
    KEYVET_ROTATE_ISSUER KEYVET_ROTATE_TEMPLATE KEYVET_ROTATE_KEY KEYVET_ROTATE_KEYS KEYVET_ROTATE_BEFORE KEYVET_ROTATE_GRACE KEYVET_ROTATE_MIN_INTERVAL \
    KEYVET_CONF_EXTRA KEYVET_PARTIAL \
"

SRC_URI = "${KEYVET_CONF_EXTRA}"
# keyvet-image: it writes the files, and has keyvet's rules.
DEPENDS = "keyvet-native"
INHIBIT_DEFAULT_DEPS = "1"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"
PACKAGE_ARCH = "${MACHINE_ARCH}"
# It cannot be built before its variables are set.
EXCLUDE_FROM_WORLD = "1"

inherit keyvet-tool

python do_compile() {
    import os

    env = {name: d.getVar(name) or '' for name in d.getVar('KEYVET_VARIABLES').split()}
    fetch = bb.fetch2.Fetch(env['KEYVET_CONF_EXTRA'].split(), d)

    def unpacked(uri):  # a file:// keeps the folders of its path
        ud = fetch.ud[uri]
        folder = os.path.dirname(ud.path).lstrip('/') if ud.type == 'file' else ''
        return os.path.join(d.getVar('UNPACKDIR'), ud.parm.get('subdir', ''), folder, os.path.basename(fetch.localpath(uri)))

    env['KEYVET_CONF_EXTRA'] = ' '.join(unpacked(uri) for uri in fetch.urls)
    keyvet_image(d, env, 'write', d.expand('${B}/image'))
}
do_compile[cleandirs] = "${B}"
do_compile[vardeps] += "${KEYVET_VARIABLES}"

do_install() {
    cp -R ${B}/image/. ${D}
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'false', 'true', d)}; then
        rm -rf ${D}${nonarch_libdir}/systemd ${D}${nonarch_libdir}/tmpfiles.d
    fi
    if [ ${nonarch_base_libdir} != ${nonarch_libdir} ] && [ -d ${D}${nonarch_libdir}/udev ]; then
        install -d ${D}${nonarch_base_libdir}
        mv ${D}${nonarch_libdir}/udev ${D}${nonarch_base_libdir}
    fi
    rmdir --ignore-fail-on-non-empty -p ${D}${nonarch_libdir} 2>/dev/null || true
}

FILES:${PN} += "${nonarch_libdir}/systemd ${nonarch_libdir}/tmpfiles.d ${nonarch_libdir}/keyvet ${nonarch_base_libdir}/udev"
CONFFILES:${PN} = "${sysconfdir}/keyvet/keyvet.toml"
RPROVIDES:${PN} += "virtual-keyvet-conf"
# A kernel may have the drivers as modules, or built in.
RRECOMMENDS:${PN} = "${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', 'kernel-module-tpm-tis kernel-module-tpm-crb kernel-module-tpm-tis-spi kernel-module-tpm-tis-i2c kernel-module-tpm-ftpm-tee', '', d)}"
