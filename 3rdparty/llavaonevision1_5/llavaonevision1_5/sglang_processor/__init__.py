"""SGLang's external processor package: `SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE=llavaonevision1_5.sglang_processor`.

SGLang imports every module in here and registers the processors it finds; it only logs an import error.
"""
