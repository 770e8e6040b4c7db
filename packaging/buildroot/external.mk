include $(BR2_EXTERNAL_KEYVET_PATH)/keyvet/keyvet.mk
