# No trace of it in the kernel of another machine.
require ${@bb.utils.contains_any('MACHINE_FEATURES', 'tpm tpm2', 'linux-keyvet.inc', '', d)}
