// The race: track, cars, physics. No graphics and no input or output in here.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "torcs_abi.h"

// One physics step; TORCS' own race engine uses the same values.
static const double kPhysicsSeconds = 0.002, kRobotSeconds = 0.02;
// Where ahead of the car the state looks at the road's curvature, in metres along the axis.
static const float kLookAheadMetres[] = {10, 20, 40, 80, 160};
static const int kLookAheads = 5;

struct Opponent {
	std::string module;  // a robot module, such as "bt"
	int index;           // the driver within the module
	std::string car;     // empty: the car that the robot's own file names
};

struct WorldOptions {
	std::string local_folder, library_folder, data_folder;
	std::string track;  // "category/name"
	std::string car;
	int skill = 3;  // 0 takes no damage, 3 all of it
	bool traction_control = true;
	std::vector<Opponent> opponents;
};

struct Controls {
	float steer = 0, accelerator = 0, brake = 0;
};

// What a reply says about the car; process.py reads the same layout (CarState).
struct __attribute__((packed)) CarState {
	float speed_x, speed_y;    // m/s along and across the car
	float angle;               // rad from the car's heading to the road's axis, left positive
	float to_middle, width;    // m left of the middle line; the road's width there
	float along;               // m/s along the axis, now
	float mean_along;          // the same, averaged over the step
	float engine, red_line;    // rad/s
	float fuel;                // litres
	float turns[kLookAheads];  // rad the axis turns until each look-ahead, left positive
	float gap_ahead, gap_left; // m along the axis to the next car ahead, and how far left it is
	float lap_position;        // m from the start line
	int32_t gear, damage, race_position, state;
	double seconds, distance;  // since the reset: race time, m along the axis
};

// Load the modules, track and cars; false after a message on stderr.
bool load_world(const WorldOptions &);
// Put all cars back, the agent's at `start_metres` from the line and `lateral` (-1 right edge,
// 1 left edge), the others ahead of it; everything random in the robots follows `seed`.
void reset_world(float start_metres, float lateral, uint32_t seed);
// Advance by `steps` physics steps under the given controls.
void step_world(int steps, const Controls &);
CarState agent_state();

tTrack *world_track();
Situation *world_situation();
RmInfo *world_info();
// Call once the graphics module has seen the cars: what it stored in them must survive a reset.
void keep_graphics_fields();
// Load a TORCS module and fill its descriptions; false after a message on stderr.
bool load_module(const std::string &path, ModInfo *infos);
