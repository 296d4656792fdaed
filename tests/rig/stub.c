/* The C functions that NVIDIA's Python bindings link against, without TensorRT behind them.

   Three of them ask a hook for the object to return; tests/rig/simulated fills the hooks from Python. Everything else
   answers "none". Compiled by tests/rig/bindings.py into libraries with the names that the bindings ask for. */

#include <stddef.h>
#include <stdint.h>

#define WORD_OF_DELETED 7 /* of a simulated object; tests/rig/simulated/abi.py lays them out */

typedef void *(*create_from_logger)(void *logger);
typedef void *(*create_from_network)(void *network, void *logger);

create_from_logger rig_create_builder = NULL;
create_from_logger rig_create_runtime = NULL;
create_from_network rig_create_parser = NULL;

void *createInferBuilder_INTERNAL(void *logger, int32_t version) {
    return rig_create_builder ? rig_create_builder(logger) : NULL;
}

void *createInferRuntime_INTERNAL(void *logger, int32_t version) {
    return rig_create_runtime ? rig_create_runtime(logger) : NULL;
}

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
    return rig_create_parser ? rig_create_parser(network, logger) : NULL;
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t version) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return NULL; }
void *getBuilderPluginRegistry(int32_t capability) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
int32_t getInferLibVersion(void) { return 0; }
_Bool initLibNvInferPlugins(void *logger, char const *name_space) { return 1; }

/* libnvparsers of TensorRT 8: mangled C++ names of UFF and Caffe. */
void *_ZN11nvuffparser15createUffParserEv(void) { return NULL; }
void _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi(void) {}
void *_ZN14nvcaffeparser117createCaffeParserEv(void) { return NULL; }
void _ZN14nvcaffeparser123shutdownProtobufLibraryEv(void) {}

/* Destructors run while the interpreter shuts down too, so they are C: the object is only marked. */
void rig_mark_deleted(void *object) { ((uintptr_t *)object)[WORD_OF_DELETED] += 1; }
void rig_ignore(void *object) {}
