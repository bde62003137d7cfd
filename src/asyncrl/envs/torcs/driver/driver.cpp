// torcs-host: runs a TORCS race without window, sound or clock, one request at a time.
//
// It loads the modules of Debian's torcs package (track, simuv2, ssggraph and the robots) and
// runs the race loop itself. It is a separate program behind a pipe because those modules are
// GPL-2+; the Python package only talks to it.
//
// Usage: torcs-host key=value ...   (see parse_arguments; process.py writes the command line)
// Requests come on fd 0, replies go to the fd that was 1 at start, messages to fd 2. The host
// ends when fd 0 closes or when its parent is gone.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#include "screen.h"
#include "world.h"
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>

static const uint32_t kProtocol = 0x54524301;  // "TRC" and the version, shared with process.py

struct __attribute__((packed)) Request {
	uint32_t command;        // 'R' reset, 'S' step, 'V' view
	int32_t physics_steps;   // S
	float steer, accelerator, brake;  // S
	float start_metres, lateral;      // R
	uint32_t seed;           // R
	int32_t draw;            // R, S: send a picture too
};
struct __attribute__((packed)) Hello {
	uint32_t protocol, reply_bytes;
	float track_length, track_width;
	char track_name[64];
};
struct __attribute__((packed)) Reply {
	CarState car;
	uint32_t picture_bytes;
};
struct Arguments {
	WorldOptions world;
	int width = 84, height = 84, view_scale = 0;
	bool graphics = true;
	int parent = 0;
};

static int reply_fd;

static void write_all(const void *data, size_t size) {
	for (const char *at = (const char *)data; size;) {
		ssize_t sent = write(reply_fd, at, size);
		if (sent <= 0) _exit(0);  // nobody listens any more
		at += sent;
		size -= sent;
	}
}

static bool read_all(void *data, size_t size) {
	for (char *at = (char *)data; size;) {
		ssize_t got = read(0, at, size);
		if (got <= 0) return false;
		at += got;
		size -= got;
	}
	return true;
}

static Opponent parse_opponent(const std::string &text) {  // module:index[:car]
	size_t first = text.find(':'), second = text.find(':', first + 1);
	Opponent who = {text.substr(0, first), atoi(text.c_str() + first + 1), ""};
	if (second != std::string::npos) who.car = text.substr(second + 1);
	return who;
}

static bool parse_arguments(int count, char **values, Arguments &a) {
	for (int i = 1; i < count; i++) {
		std::string text = values[i];
		size_t equals = text.find('=');
		std::string key = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
		if (key == "local") a.world.local_folder = value;
		else if (key == "library") a.world.library_folder = value;
		else if (key == "data") a.world.data_folder = value;
		else if (key == "track") a.world.track = value;
		else if (key == "car") a.world.car = value;
		else if (key == "skill") a.world.skill = atoi(value.c_str());
		else if (key == "traction_control") a.world.traction_control = value == "1";
		else if (key == "opponent") a.world.opponents.push_back(parse_opponent(value));
		else if (key == "graphics") a.graphics = value == "1";
		else if (key == "width") a.width = atoi(value.c_str());
		else if (key == "height") a.height = atoi(value.c_str());
		else if (key == "view_scale") a.view_scale = atoi(value.c_str());
		else if (key == "parent") a.parent = atoi(value.c_str());
		else {
			fprintf(stderr, "torcs-host: unknown argument %s\n", values[i]);
			return false;
		}
	}
	return true;
}

// End with the parent even where a forked sibling keeps our pipe open, or while a module hangs.
// The parent's death signal only wakes a stopped host: it is sent when the *thread* that started
// us ends, so it must not kill.
static void follow_parent(int parent) {
	signal(SIGINT, SIG_IGN);  // Ctrl-C is the parent's to handle
	prctl(PR_SET_PDEATHSIG, SIGCONT);
	if (!parent) return;
	std::thread([parent] {
		while (getppid() == parent) sleep(1);
		_exit(0);
	}).detach();
}

static void send_hello() {
	Hello hello = {kProtocol, sizeof(Reply), world_track()->length, world_track()->width, {}};
	snprintf(hello.track_name, sizeof hello.track_name, "%s", world_track()->name);
	write_all(&hello, sizeof hello);
}

static void send_reply(const std::vector<unsigned char> &picture) {
	Reply reply = {agent_state(), (uint32_t)picture.size()};
	write_all(&reply, sizeof reply);
	write_all(picture.data(), picture.size());
}

static void serve(const Arguments &a) {
	static const std::vector<unsigned char> nothing;
	Request request;
	while (read_all(&request, sizeof request)) {
		if (request.command == 'R') {
			reset_world(request.start_metres, request.lateral, request.seed);
		} else if (request.command == 'S') {
			step_world(request.physics_steps, {request.steer, request.accelerator, request.brake});
		} else if (request.command == 'V') {
			send_reply(a.graphics && a.view_scale ? draw_view(a.view_scale) : nothing);
			continue;
		} else {
			fprintf(stderr, "torcs-host: unknown request %u\n", request.command);
			return;
		}
		send_reply(a.graphics && request.draw ? draw() : nothing);
	}
}

int main(int count, char **values) {
	Arguments arguments;
	if (!parse_arguments(count, values, arguments)) return 2;
	reply_fd = dup(1);  // TORCS prints to standard output
	dup2(2, 1);
	setvbuf(stdout, nullptr, _IOLBF, 0);
	follow_parent(arguments.parent);
	if (chdir(arguments.world.data_folder.c_str())) {
		fprintf(stderr, "torcs-host: no folder %s\n", arguments.world.data_folder.c_str());
		return 2;
	}
	if (arguments.graphics && !open_screen(arguments.width, arguments.height, arguments.view_scale)) return 4;
	if (!load_world(arguments.world)) return 5;
	if (arguments.graphics) {
		if (!load_scene(arguments.world.library_folder)) return 6;
		load_car_models();
	}
	send_hello();
	serve(arguments);
	_exit(0);  // the modules' own clean-up expects a window
}
