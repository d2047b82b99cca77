/* A fault for the leak tests, preloaded into weir: nobody reads a bus. What weir calls to read one does nothing, and what
 * GStreamer would throw away when a pipeline ends stays where it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

typedef void *(*get_bus)(void *element);
typedef void (*set)(void *object, const char *property, ...);

void gst_bus_set_sync_handler(void *bus, void *handler, void *data, void *notify) {
  (void)bus, (void)handler, (void)data, (void)notify;
}

/* Weir asks for the buses of pipelines only. */
void *gst_element_get_bus(void *pipeline) {
  ((set)dlsym(RTLD_DEFAULT, "g_object_set"))(pipeline, "auto-flush-bus", 0, NULL);
  return ((get_bus)dlsym(RTLD_NEXT, "gst_element_get_bus"))(pipeline);
}
