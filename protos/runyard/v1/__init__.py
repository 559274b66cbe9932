"""The protocol of Runyard: messages and stubs generated from the .proto files beside this one."""
