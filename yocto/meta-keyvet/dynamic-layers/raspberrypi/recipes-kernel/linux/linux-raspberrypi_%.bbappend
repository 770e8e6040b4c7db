require ${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', 'recipes-kernel/linux/linux-keyvet.inc', '', d)}
