# An image that is refused when keyvet could not work on it:
#     IMAGE_CLASSES += "keyvet-image"
# The configuration is read as on the device, with the fragments of all packages;
# its state must outlive a reboot, and its name must not be that of every device.
inherit keyvet-tool

DEPENDS += "keyvet-native"

KEYVET_PARTIAL ?= "0"
# "1": the file that names the thing is written by each device.
KEYVET_ONE_THING ?= "0"
# "1": state_dir is on a mount that lasts, though the image does not show it.
KEYVET_STATE_PERSISTENT ?= "0"

python keyvet_image_check() {
    env = {name: d.getVar(name) or '' for name in ('KEYVET_PARTIAL', 'KEYVET_ONE_THING', 'KEYVET_STATE_PERSISTENT')}
    read_only = ['-read-only'] if bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', True, False, d) else []
    keyvet_image(d, env, 'check', *read_only, d.getVar('IMAGE_ROOTFS'))
}
ROOTFS_POSTPROCESS_COMMAND:append = " keyvet_image_check"
do_rootfs[vardeps] += "KEYVET_PARTIAL KEYVET_ONE_THING KEYVET_STATE_PERSISTENT"
