################################################################################
#
# keyvet
#
################################################################################

# A release sets the tag. Go 1.26 or later: Buildroot 2026.02.1 or later.
KEYVET_VERSION = main
KEYVET_SITE = $(call github,keyvet,keyvet,$(KEYVET_VERSION))
KEYVET_LICENSE = Apache-2.0, BSD-3-Clause, MIT
KEYVET_LICENSE_FILES = LICENSE
KEYVET_GOMOD = github.com/keyvet/keyvet
KEYVET_BUILD_TARGETS = cmd/keyvet
KEYVET_GO_ENV = CGO_ENABLED=0
KEYVET_LDFLAGS = -s -w -X main.version=$(KEYVET_VERSION)

# What writes the configuration and has keyvet's rules runs on the build host.
HOST_KEYVET_BUILD_TARGETS = cmd/keyvet/internal/image
HOST_KEYVET_BIN_NAME = keyvet-image
HOST_KEYVET_GOMOD = $(KEYVET_GOMOD)
KEYVET_DEPENDENCIES = host-keyvet

define KEYVET_USERS
	keyvet -1 keyvet -1 * /var/lib/keyvet - tss keyvet
endef

define KEYVET_CONFIGURE_IMAGE
	env $(call qstrip,$(BR2_PACKAGE_KEYVET_VARIABLES)) \
		KEYVET_CONF_EXTRA="$(call qstrip,$(BR2_PACKAGE_KEYVET_FRAGMENTS))" \
		$(HOST_DIR)/bin/keyvet-image write $(TARGET_DIR)
endef
KEYVET_POST_INSTALL_TARGET_HOOKS += KEYVET_CONFIGURE_IMAGE

# The whole root file system, with what other packages and overlays added.
define KEYVET_CHECK_IMAGE
	env $(call qstrip,$(BR2_PACKAGE_KEYVET_VARIABLES)) $(HOST_DIR)/bin/keyvet-image check \
		$(if $(BR2_TARGET_GENERIC_REMOUNT_ROOTFS_RW),,-read-only) $(TARGET_DIR)
endef
KEYVET_TARGET_FINALIZE_HOOKS += KEYVET_CHECK_IMAGE

define KEYVET_INSTALL_RULES
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/60-keyvet.rules \
		$(TARGET_DIR)/usr/lib/udev/rules.d/60-keyvet.rules
endef
KEYVET_POST_INSTALL_TARGET_HOOKS += KEYVET_INSTALL_RULES

define KEYVET_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/packaging/sysvinit/keyvet $(TARGET_DIR)/etc/init.d/S60keyvet
endef

define KEYVET_INSTALL_INIT_SYSTEMD
	for unit in keyvet.service keyvet-state@.service keyvet-trusted.target keyvet-trusted.path \
			keyvet-shut.path keyvet-shut.target; do \
		$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/$$unit $(TARGET_DIR)/usr/lib/systemd/system/$$unit || exit; \
	done
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/80-keyvet.preset $(TARGET_DIR)/usr/lib/systemd/system-preset/80-keyvet.preset
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/keyvet.tmpfiles $(TARGET_DIR)/usr/lib/tmpfiles.d/keyvet.conf
endef

$(eval $(golang-package))
$(eval $(host-golang-package))
