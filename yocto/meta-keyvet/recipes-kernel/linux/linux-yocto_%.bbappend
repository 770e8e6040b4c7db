require linux-keyvet.inc
