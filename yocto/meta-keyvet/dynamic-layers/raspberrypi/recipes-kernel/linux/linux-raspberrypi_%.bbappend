require recipes-kernel/linux/linux-keyvet.inc
