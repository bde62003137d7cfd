// The picture: a window-less OpenGL context, TORCS' graphics module, and stand-ins for the
// window and menu functions which that module expects to find.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#include "screen.h"
#include "world.h"
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <unistd.h>

static int screen_width, screen_height, viewport_scale = 1;
static EGLDisplay display;
static EGLContext context;
// Two surfaces: Mesa rounds a few pixels differently in a larger one, and what the agent sees
// must not depend on whether somebody watches.
static EGLSurface agent_surface, view_surface;
static std::vector<unsigned char> bottom_up, picture;

// ---- stand-ins --------------------------------------------------------------------------------
// The host is linked with -rdynamic, so these win over libtgfclient's and libglut's own, which
// would open a window. The names are part of the linker symbols.
struct tMouseInfo { int x, y, buttons[8]; };
extern "C" int glutGet(unsigned) { return 8; }
void GfScrGetSize(int *width, int *height, int *view_width, int *view_height) {
	*width = *view_width = screen_width;
	*height = *view_height = screen_height;
}
void GfScrShutdown() {
	fprintf(stderr, "torcs-host: the graphics module gave up\n");
	_exit(3);
}
void GfuiAddKey(void *, unsigned char, const char *, void *, void (*)(void *), void (*)(void *)) {}
void GfuiAddSKey(void *, int, const char *, void *, void (*)(void *), void (*)(void *)) {}
int GfuiFontHeight(int) { return 10; }
int GfuiFontWidth(int, const char *) { return 10; }
void GfuiPrintString(const char *, float *, int, int, int, int) {}
tMouseInfo *GfuiMouseInfo() {
	static tMouseInfo mouse;
	return &mouse;
}
void startMenuMusic() {}
void stopMenuMusic() {}
bool isCompressARBAvailable() { return false; }
bool isCompressARBEnabled() { return false; }
// One texture a surface instead of up to four: nearly the same picture for half the work.
int GetSingleTextureMode() { return 1; }
int getUserTextureMaxSize() { return 128; }  // texels; finer textures do not show at 84x84

// The module knows one screen size for good. Stretching the viewport alone gives the same
// picture larger, without disturbing the module's state (and so the next observation).
extern "C" void glViewport(GLint x, GLint y, GLsizei width, GLsizei height) {
	static auto real = (void (*)(GLint, GLint, GLsizei, GLsizei))dlsym(RTLD_NEXT, "glViewport");
	real(x * viewport_scale, y * viewport_scale, width * viewport_scale, height * viewport_scale);
}

// ---- context ----------------------------------------------------------------------------------
static bool fail(const char *what) {
	fprintf(stderr, "torcs-host: no off-screen OpenGL (%s, EGL error 0x%x); is libgl1-mesa-dri installed?\n", what, eglGetError());
	return false;
}

static EGLSurface make_surface(EGLConfig config, int scale) {
	EGLint size[] = {EGL_WIDTH, screen_width * scale, EGL_HEIGHT, screen_height * scale, EGL_NONE};
	return eglCreatePbufferSurface(display, config, size);
}

bool open_screen(int width, int height, int view_scale) {
	screen_width = width;
	screen_height = height;
	auto get_display = (PFNEGLGETPLATFORMDISPLAYEXTPROC)eglGetProcAddress("eglGetPlatformDisplayEXT");
	if (!get_display) return fail("no eglGetPlatformDisplayEXT");
	display = get_display(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, nullptr);
	EGLint major, minor, found = 0;
	if (!eglInitialize(display, &major, &minor)) return fail("eglInitialize");
	eglBindAPI(EGL_OPENGL_API);
	EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT, EGL_RED_SIZE, 8,
		EGL_GREEN_SIZE, 8, EGL_BLUE_SIZE, 8, EGL_ALPHA_SIZE, 8, EGL_DEPTH_SIZE, 24, EGL_NONE};
	EGLConfig config;
	if (!eglChooseConfig(display, wanted, &config, 1, &found) || !found) return fail("eglChooseConfig");
	agent_surface = make_surface(config, 1);
	if (view_scale) view_surface = make_surface(config, view_scale);
	context = eglCreateContext(display, config, EGL_NO_CONTEXT, nullptr);
	if (!eglMakeCurrent(display, agent_surface, agent_surface, context)) return fail("eglMakeCurrent");
	fprintf(stderr, "torcs-host: drawing with %s\n", glGetString(GL_RENDERER));
	return true;
}

bool load_scene(const std::string &library_folder) {
	ModInfo infos[10] = {};
	if (!load_module(library_folder + "modules/graphic/ssggraph.so", infos)) return false;
	GraphicModule &graphics = world_info()->graphics;
	infos[0].init(infos[0].index, &graphics);
	graphics.init_track(world_track());
	return true;
}

void load_car_models() {
	GraphicModule &graphics = world_info()->graphics;
	graphics.init_view(0, 0, screen_width, screen_height, 0, nullptr);
	graphics.init_cars(world_situation());
	keep_graphics_fields();
}

static void draw_scaled(int scale) {
	int width = screen_width * scale, height = screen_height * scale;
	size_t row = (size_t)width * 3;
	bottom_up.resize(row * height);
	picture.resize(row * height);
	viewport_scale = scale;
	world_info()->graphics.refresh(world_situation());
	viewport_scale = 1;
	glPixelStorei(GL_PACK_ALIGNMENT, 1);
	glPixelStorei(GL_PACK_ROW_LENGTH, 0);
	glReadPixels(0, 0, width, height, GL_RGB, GL_UNSIGNED_BYTE, bottom_up.data());
	for (int y = 0; y < height; y++) memcpy(&picture[y * row], &bottom_up[(height - 1 - y) * row], row);
}

const std::vector<unsigned char> &draw() {
	draw_scaled(1);
	return picture;
}

const std::vector<unsigned char> &draw_view(int scale) {
	eglMakeCurrent(display, view_surface, view_surface, context);
	draw_scaled(scale);
	eglMakeCurrent(display, agent_surface, agent_surface, context);
	return picture;
}
