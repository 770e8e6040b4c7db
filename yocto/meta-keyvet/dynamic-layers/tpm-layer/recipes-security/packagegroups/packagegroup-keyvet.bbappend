# To look at the TPM by hand.
RRECOMMENDS:${PN} += "tpm2-tools"
