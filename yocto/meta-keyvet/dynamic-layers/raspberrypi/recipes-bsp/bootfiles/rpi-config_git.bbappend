# "slb9670" (the SLB9672 too) on SPI, "slb9673" on I2C.
KEYVET_RPI_TPM ?= ""
KEYVET_RPI_BUS = "${@{'slb9670': 'spi=on', 'slb9673': 'i2c_arm=on'}.get(d.getVar('KEYVET_RPI_TPM'), '')}"
RPI_EXTRA_CONFIG:append = "${@bb.utils.contains_any('KEYVET_RPI_TPM', 'slb9670 slb9673', '\n# keyvet\ndtparam=${KEYVET_RPI_BUS}\ndtoverlay=tpm-${KEYVET_RPI_TPM}\n', '', d)}"
