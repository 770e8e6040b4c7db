SUMMARY = "keyvet and what it wants on an image"

inherit packagegroup features_check
REQUIRED_DISTRO_FEATURES = "systemd"

RDEPENDS:${PN} = "keyvet virtual-keyvet-conf ca-certificates"
