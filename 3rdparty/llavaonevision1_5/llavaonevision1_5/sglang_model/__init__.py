"""SGLang's external model package: `SGLANG_EXTERNAL_MODEL_PACKAGE=llavaonevision1_5.sglang_model`.

SGLang imports every module in here and takes its `EntryClass`. It only logs an import error and goes on
without the model, so import `llavaonevision1_5.sglang_model.model` directly to see one.
"""
