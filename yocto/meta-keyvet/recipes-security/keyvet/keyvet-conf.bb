SUMMARY = "Configuration of keyvet"
DESCRIPTION = "Writes keyvet.toml from variables. A product may replace this recipe by its own that provides virtual-keyvet-conf."
HOMEPAGE = "https://github.com/keyvet/keyvet"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# The thing's name; "cert:CN", "ek:sha256" or "file:/etc/hostname" on an image
# that is the same for the whole fleet.
KEYVET_THING_NAME ?= "file:${sysconfdir}/hostname"
# Space-separated HOST:PORT, such as "xxxx-ats.iot.eu-west-1.amazonaws.com:8883".
KEYVET_ENDPOINTS ?= ""
# The endpoint's CA certificates on the device; "" is the system's.
KEYVET_CA_FILE ?= ""
# "" is a device without a TPM.
KEYVET_TPM_ADDRESS ?= "${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', '/dev/tpmrm0', '', d)}"
KEYVET_STATE_DIR ?= "${localstatedir}/lib/keyvet"
KEYVET_GATE ?= "acknowledged"
# First contact: the provisioning template, and the claim's certificate and key.
KEYVET_PROVISION_TEMPLATE ?= ""
# Below the state directory the service can remove the claim after first contact,
# which KEYVET_DELETE_CLAIM = "1" asks for.
KEYVET_CLAIM_CERTIFICATE ?= "${@d.getVar('KEYVET_STATE_DIR') + '/claim/certificate.pem' if d.getVar('KEYVET_PROVISION_TEMPLATE') else ''}"
KEYVET_CLAIM_KEY ?= "${@d.getVar('KEYVET_STATE_DIR') + '/claim/key.pem' if d.getVar('KEYVET_PROVISION_TEMPLATE') else ''}"
KEYVET_DELETE_CLAIM ?= "0"

# Rotations: "fleet-provisioning" or "topics", the template of the former, and how
# long before its end a certificate is replaced unasked, such as "720h". The stack of
# docs/aws has a template of its own for them.
KEYVET_ROTATE_ISSUER ?= ""
KEYVET_ROTATE_TEMPLATE ?= "${@'keyvet-rotate' if d.getVar('KEYVET_PROVISION_TEMPLATE') == 'keyvet-first' else ''}"
KEYVET_ROTATE_BEFORE ?= ""
# "http://host:3128". What is written here is readable on the device: a password
# belongs into /etc/keyvet/environment (docs/systemd.md).
KEYVET_PROXY ?= ""

inherit features_check
REQUIRED_DISTRO_FEATURES = "systemd"

INHIBIT_DEFAULT_DEPS = "1"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"
PACKAGE_ARCH = "${MACHINE_ARCH}"

python do_compile() {
    import json
    import os

    def get(name):
        return (d.getVar('KEYVET_' + name) or '').strip()

    def text(name):
        value = get(name)
        if any(c < ' ' or c > '~' for c in value):
            bb.fatal('KEYVET_%s: %r is not printable ASCII' % (name, value))
        return json.dumps(value)  # of printable ASCII, also a string of TOML

    endpoints = get('ENDPOINTS').split()
    if not endpoints:
        bb.warn('KEYVET_ENDPOINTS is not set: keyvet run will not start without an endpoint')
    out = ['# Written by the recipe keyvet-conf.', 'state_dir = ' + text('STATE_DIR')]
    tables = (
        ('thing', (('name', 'THING_NAME'),)),
        ('tpm', (('address', 'TPM_ADDRESS'),)),
        ('mqtt', (('ca_file', 'CA_FILE'), ('proxy', 'PROXY'))),
        ('gate', (('open', 'GATE'),)),
        ('provision', (('template', 'PROVISION_TEMPLATE'), ('claim_certificate', 'CLAIM_CERTIFICATE'), ('claim_key', 'CLAIM_KEY'))),
        ('rotate', (('issuer', 'ROTATE_ISSUER'), ('template', 'ROTATE_TEMPLATE'), ('before', 'ROTATE_BEFORE'))),
    )
    for table, keys in tables:
        lines = ['%s = %s' % (key, text(name)) for key, name in keys if get(name) or name == 'TPM_ADDRESS']
        if table == 'mqtt' and endpoints:
            lines.insert(0, 'endpoints = ' + json.dumps(endpoints))
        if table == 'provision' and lines and bb.utils.to_boolean(get('DELETE_CLAIM')):
            lines.append('delete_claim = true')
        if lines:
            out += ['', '[%s]' % table] + lines
    with open(d.expand('${B}/keyvet.toml'), 'w') as f:
        f.write('\n'.join(out) + '\n')

    dropin = []
    if bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', True, False, d) and get('TPM_ADDRESS') == '/dev/tpmrm0':
        dropin += ['[Unit]', 'Wants=dev-tpmrm0.device', 'After=dev-tpmrm0.device', '']
    state = get('STATE_DIR')
    if state != d.expand('${localstatedir}/lib/keyvet'):
        dropin += ['[Unit]', 'RequiresMountsFor=' + state, '', '[Service]', 'StateDirectory=', 'ReadWritePaths=' + state, '']
    if bb.utils.to_boolean(get('DELETE_CLAIM')):
        places = sorted({os.path.dirname(get(name)) for name in ('CLAIM_CERTIFICATE', 'CLAIM_KEY')})
        outside = [p for p in places if p and p != state and not p.startswith(state + '/')]
        if outside:
            dropin += ['[Service]', 'ReadWritePaths=' + ' '.join('-' + p for p in outside), '']
    with open(d.expand('${B}/machine.conf'), 'w') as f:
        f.write('\n'.join(dropin))
    with open(d.expand('${B}/tmpfiles.conf'), 'w') as f:
        # An update of the image may give user keyvet another number.
        f.write('d %s 0700 keyvet keyvet -\nZ %s - keyvet keyvet -\n' % (state, state))
}
do_compile[cleandirs] = "${B}"
do_compile[vardeps] += "KEYVET_THING_NAME KEYVET_ENDPOINTS KEYVET_CA_FILE KEYVET_TPM_ADDRESS KEYVET_STATE_DIR KEYVET_GATE \
    KEYVET_PROVISION_TEMPLATE KEYVET_CLAIM_CERTIFICATE KEYVET_CLAIM_KEY KEYVET_DELETE_CLAIM KEYVET_ROTATE_ISSUER KEYVET_ROTATE_TEMPLATE KEYVET_ROTATE_BEFORE KEYVET_PROXY"

do_install() {
    install -D -m 0644 ${B}/keyvet.toml ${D}${sysconfdir}/keyvet/keyvet.toml
    if [ -s ${B}/machine.conf ]; then
        install -D -m 0644 ${B}/machine.conf ${D}${systemd_system_unitdir}/keyvet.service.d/machine.conf
    fi
    if [ "${KEYVET_STATE_DIR}" != "${localstatedir}/lib/keyvet" ]; then
        install -D -m 0644 ${B}/tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/keyvet-state.conf
    fi
}

FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d"
CONFFILES:${PN} = "${sysconfdir}/keyvet/keyvet.toml"
RPROVIDES:${PN} += "virtual-keyvet-conf"
# A kernel may have the drivers as modules, or built in.
RRECOMMENDS:${PN} = "${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', 'kernel-module-tpm-tis kernel-module-tpm-crb kernel-module-tpm-tis-spi kernel-module-tpm-tis-i2c', '', d)}"
