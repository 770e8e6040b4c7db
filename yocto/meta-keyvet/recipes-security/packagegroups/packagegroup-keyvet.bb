SUMMARY = "keyvet and what it wants on an image"

MAINTAINER = "The keyvet authors <keyvet@users.noreply.github.com>"

inherit packagegroup

RDEPENDS:${PN} = "keyvet virtual-keyvet-conf ca-certificates"
