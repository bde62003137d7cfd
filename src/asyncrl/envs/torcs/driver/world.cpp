// The race: track, cars, physics. See world.h.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#include "world.h"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

static const int kSettleSteps = 250;         // half a second on the springs, brakes on
static const float kGridSpacingMetres = 10;  // between two cars at the start
static const float kGapLimitMetres = 100;    // cars farther ahead are not reported
static const int kLaps = 1000;

static WorldOptions options;
static RmInfo info;
static Situation situation;
static tTrack *track;
static std::vector<CarElt> cars;         // cars[0] is the agent's
static std::vector<CarElt> fresh_cars;   // images of the cars as they were loaded
static std::vector<float> last_position; // m from the line, to notice its crossing
static std::vector<int> laps_done;       // line crossings, backward ones subtracted
static double clock_seconds = 1000, robots_due, agent_distance, along_sum;
static int along_count;
static Controls controls;

static double virtual_clock() { return clock_seconds; }

static float normalised(float angle) { return remainderf(angle, 2 * (float)M_PI); }

bool load_module(const std::string &path, ModInfo *infos) {
	void *handle = dlopen(path.c_str(), RTLD_NOW);
	if (!handle) {
		fprintf(stderr, "torcs-host: cannot load a module: %s\n", dlerror());
		return false;
	}
	size_t begin = path.rfind('/') + 1;
	std::string name = path.substr(begin, path.size() - begin - 3);  // without ".so"
	auto describe = (int (*)(ModInfo *))dlsym(handle, name.c_str());
	if (!describe || describe(infos) != 0) {
		fprintf(stderr, "torcs-host: %s does not describe itself\n", path.c_str());
		return false;
	}
	return true;
}

// ---- the agent's car ------------------------------------------------------------------------
static void clear_controls(CarElt &car) {
	memset((char *)&car + kCarControlOffset, 0, kCarControlBytes);
}

// Shift up where the engine nears its red line, down where the lower gear has room for it.
static int automatic_gear(const CarElt &car) {
	if (car.gear <= 0) return 1;
	auto top_speed = [&](int gear) {
		return 0.95f * car.engine_red_line_rads / car.gear_ratios[gear + car.gear_offset] * car.rear_wheel_radius;
	};
	bool higher_exists = car.gear + car.gear_offset + 1 < car.gear_count;
	if (higher_exists && car.speed_x > top_speed(car.gear)) return car.gear + 1;
	if (car.gear > 1 && car.speed_x + 4.0f < top_speed(car.gear - 1)) return car.gear - 1;
	return car.gear;
}

// Ease off the accelerator while the driven wheels turn faster than the car moves. Without it the
// fast car spins on the spot under full throttle, which is all a discrete action can give.
static float traction_controlled(const CarElt &car, float accelerator) {
	const float allowed = 2.0f, range = 6.0f;  // m/s
	if (!options.traction_control || car.gear <= 0 || car.speed_x < 2.0f) return accelerator;
	float wheel_speed = car.engine_rads / car.gear_ratios[car.gear + car.gear_offset] * car.rear_wheel_radius;
	float slip = wheel_speed - car.speed_x - allowed;
	return accelerator * std::max(0.0f, std::min(1.0f, 1.0f - slip / range));
}

static void agent_drive(int, CarElt *car, Situation *) {
	clear_controls(*car);
	car->steer = controls.steer;
	car->accelerator = traction_controlled(*car, controls.accelerator);
	car->brake = controls.brake;
	car->wanted_gear = automatic_gear(*car);
	if (car->wanted_gear == 1 && car->speed_x < 4.0f) car->clutch = 0.5f * (1.0f - car->speed_x / 4.0f);
}
static void agent_new_track(int, tTrack *, void *, void **setup, Situation *) { *setup = nullptr; }
static void agent_race_event(int, CarElt *, Situation *) {}
static int agent_pit(int, CarElt *, Situation *) { return 0; }
static void agent_shutdown(int) {}

// ---- loading ----------------------------------------------------------------------------------
static bool load_robot(const Opponent &who, RobotItf *robot) {
	ModInfo infos[10] = {};
	if (!load_module(options.library_folder + "drivers/" + who.module + "/" + who.module + ".so", infos)) return false;
	for (ModInfo &each : infos)
		if (each.name && each.index == who.index) return each.init(who.index, robot) == 0;
	fprintf(stderr, "torcs-host: robot %s has no driver %d\n", who.module.c_str(), who.index);
	return false;
}

static void *load_car_parameters(CarElt &car) {
	std::string path = std::string("cars/") + car.car_name + "/" + car.car_name + ".xml";
	void *parameters = GfParmReadFile(path.c_str(), kReadStandard | kReadPrivate);
	if (!parameters) return nullptr;
	const char *category = GfParmGetStr(parameters, "Car", "category", nullptr);
	if (!category) return parameters;
	snprintf(car.category, sizeof car.category, "%s", category);
	void *base = GfParmReadFile((std::string("categories/") + category + ".xml").c_str(), kReadStandard | kReadPrivate);
	return GfParmMergeHandles(base, parameters, kMergeAll);
}

static void name_car(CarElt &car, const Opponent &who, void *robot_parameters, bool is_agent) {
	char section[64];
	snprintf(section, sizeof section, "Robots/index/%d", who.index);
	const char *own_car = GfParmGetStr(robot_parameters, section, "car name", "");
	snprintf(car.module_name, sizeof car.module_name, "%s", who.module.c_str());
	snprintf(car.name, sizeof car.name, "%s", GfParmGetStr(robot_parameters, section, "name", who.module.c_str()));
	snprintf(car.team_name, sizeof car.team_name, "%s", GfParmGetStr(robot_parameters, section, "team", "none"));
	snprintf(car.car_name, sizeof car.car_name, "%s", who.car.empty() ? own_car : who.car.c_str());
	car.race_number = (int)GfParmGetNum(robot_parameters, section, "race number", nullptr, car.index);
	car.driver_index = who.index;
	car.driver_type = kDriverRobot;
	car.skill_level = is_agent ? options.skill : 0;
}

static bool add_car(const Opponent &who, bool is_agent) {
	cars.emplace_back();
	CarElt &car = cars.back();
	memset((void *)&car, 0, sizeof car);
	car.index = (int)cars.size() - 1;
	car.robot = new RobotItf();
	std::string file = "drivers/" + who.module + "/" + who.module + ".xml";
	if (is_agent) {
		*car.robot = {agent_new_track, agent_race_event, agent_race_event, agent_drive, agent_pit, agent_shutdown, who.index, {}};
		file = options.local_folder + file;
	} else if (!load_robot(who, car.robot)) {
		return false;
	}
	car.robot_parameters = GfParmReadFile(file.c_str(), kReadStandard);
	if (!car.robot_parameters) {
		fprintf(stderr, "torcs-host: cannot read %s\n", file.c_str());
		return false;
	}
	name_car(car, who, car.robot_parameters, is_agent);
	car.remaining_laps = kLaps;
	void *parameters = load_car_parameters(car), *setup = nullptr;
	if (!parameters) {
		fprintf(stderr, "torcs-host: no car '%s' for %s:%d\n", car.car_name, who.module.c_str(), who.index);
		return false;
	}
	car.robot->new_track(who.index, track, parameters, &setup, &situation);
	car.car_parameters = setup ? GfParmMergeHandles(parameters, setup, kMergeAll) : parameters;
	RtInitCarPitSetup(car.car_parameters, &car.pit_setup, false);
	return true;
}

// Some robots look at their own pit without asking whether there is one.
static void assign_pits() {
	track->pit_count = 0;
	if (track->pits_type != kPitsOnTrackSide) return;
	track->pit_count = (int)cars.size();
	track->cars_per_pit = 1;
	for (int i = 0; i < (int)cars.size() && i < track->max_pits; i++) {
		tTrackOwnPit &pit = track->pits[i];
		pit.cars[0] = &cars[i];
		pit.next_free_car = 1;
		pit.current_car = kPitFree;
		cars[i].pit = &pit;
	}
}

// A wrong binary layout shows here first: lengths that do not add up, a name that is no text.
static bool track_is_sane() {
	double sum = 0;
	trackSeg *segment = track->last_segment;
	bool fine = track->segment_count > 2 && track->segment_count < 100000 && track->length > 100 && track->length < 50000;
	for (int i = 0; fine && i < track->segment_count; i++, segment = segment->next) sum += segment->length;
	fine = fine && segment == track->last_segment && fabs(sum - track->length) < 1 + 0.001 * track->length;
	for (const char *c = track->name; fine && *c; c++) fine = *c >= 32 && c - track->name < 200;
	if (!fine) fprintf(stderr, "torcs-host: track %s as read from TORCS makes no sense; is the torcs package another version?\n", options.track.c_str());
	return fine;
}

static bool car_is_sane() {
	const CarElt &car = cars[0];
	bool fine = car.gear_count > 2 && car.gear_count <= 10 && car.rear_wheel_radius > 0.1f && car.rear_wheel_radius < 2 &&
		car.engine_red_line_rads > 100 && car.engine_red_line_rads < 5000 && std::isfinite(car.x) && car.track_position.segment;
	if (!fine) fprintf(stderr, "torcs-host: the car as read from TORCS makes no sense; is the torcs package another version?\n");
	return fine;
}

static bool load_track() {
	ModInfo infos[10] = {};
	if (!load_module(options.library_folder + "modules/track/track.so", infos)) return false;
	infos[0].init(infos[0].index, &info.tracks);
	std::string base = options.track.substr(options.track.find('/') + 1);
	std::string path = "tracks/" + options.track + "/" + base + ".xml";
	info.track = track = info.tracks.build((char *)path.c_str());
	if (!track) fprintf(stderr, "torcs-host: cannot build track %s\n", options.track.c_str());
	return track && track_is_sane();
}

static bool load_cars() {
	// Robots choose their fuel by the race's length while they load: 0 laps would leave them dry.
	situation.total_laps = 10;
	situation.race_type = kRaceTypeRace;
	situation.max_damage = 10000;
	int count = 1 + (int)options.opponents.size();
	situation.car_count = count;
	cars.reserve(count);  // pointers to the cars are kept everywhere
	if (!add_car({"agent", 0, options.car}, true)) return false;
	for (const Opponent &each : options.opponents)
		if (!add_car(each, false)) return false;
	info.cars = cars.data();
	situation.cars = (CarElt **)calloc(count, sizeof(CarElt *));
	last_position.resize(count);
	laps_done.resize(count);
	return true;
}

bool load_world(const WorldOptions &wanted) {
	options = wanted;
	GfOs.clock = virtual_clock;
	SetLocalDir((char *)options.local_folder.c_str());
	SetLibDir((char *)options.library_folder.c_str());
	SetDataDir((char *)options.data_folder.c_str());
	info.situation = &situation;
	ModInfo infos[10] = {};
	if (!load_module(options.library_folder + "modules/simu/simuv2.so", infos)) return false;
	infos[0].init(infos[0].index, &info.simulation);
	if (!load_track() || !load_cars()) return false;
	info.simulation.init((int)cars.size(), track, 0, 1);
	assign_pits();
	fresh_cars.resize(cars.size());
	memcpy((void *)fresh_cars.data(), (void *)cars.data(), cars.size() * sizeof(CarElt));
	reset_world(0, 0, 0);
	return car_is_sane();
}

// ---- resetting --------------------------------------------------------------------------------
static trackSeg *segment_at(float metres) {
	trackSeg *segment = track->last_segment->next;
	for (int i = 1; i < track->segment_count && metres >= segment->start_distance + segment->length; i++) segment = segment->next;
	return segment;
}

static float wrapped(float metres) {
	metres = fmodf(metres, track->length);
	return metres < 0 ? metres + track->length : metres;
}

static void place_car(CarElt &car, float metres, float lateral) {
	metres = wrapped(metres);
	trackSeg *segment = segment_at(metres);
	float into = metres - segment->start_distance;
	tTrkLocPos &position = car.track_position;
	memset((void *)&position, 0, sizeof position);
	position.segment = segment;
	position.to_right = segment->width * 0.5f * (1 + lateral);
	position.to_start = segment->type == kSegmentStraight ? into : into / segment->radius;
	RtTrackLocal2Global(&position, &car.x, &car.y, kTrackToRight);
	car.yaw = RtTrackSideTgAngleL(&position);
	if (car.yaw < 0) car.yaw += 2 * (float)M_PI;
	car.z = RtTrackHeightL(&position) + 0.3f;
}

// Back to the image taken at loading, except for what owns memory elsewhere.
static void restore_car(int i) {
	CarElt &car = cars[i];
	memcpy((void *)&car, (void *)&fresh_cars[i], sizeof car);
	car.penalties[0] = nullptr;  // an empty TORCS tail queue points at its own head
	car.penalties[1] = &car.penalties[0];
}

static void settle() {
	for (CarElt &car : cars) {
		clear_controls(car);
		car.brake = 1;
	}
	for (int i = 0; i < kSettleSteps; i++) info.simulation.update(&situation, kPhysicsSeconds, -1);
}

void reset_world(float start_metres, float lateral, uint32_t seed) {
	int count = (int)cars.size();
	srand(seed);
	clock_seconds = 1000;
	info.simulation.shutdown();
	info.simulation.init(count, track, 0, 1);
	for (int i = 0; i < count; i++) {
		int slot = i == 0 ? count - 1 : i - 1;  // the agent starts last
		restore_car(i);
		float side = i == 0 ? lateral : (slot % 2 ? -0.33f : 0.33f);
		place_car(cars[i], start_metres + kGridSpacingMetres * (count - 1 - slot), side);
		cars[i].start_rank = slot;
		cars[i].race_position = slot + 1;
		info.simulation.configure(&cars[i], &info);
		situation.cars[slot] = &cars[i];
	}
	situation.race_state = kRaceRunning;
	situation.race_seconds = 0;
	situation.delta_seconds = kPhysicsSeconds;
	for (CarElt &car : cars) car.robot->new_race(car.robot->index, &car, &situation);
	settle();
	for (int i = 0; i < count; i++) {
		last_position[i] = RtGetDistFromStart(&cars[i]);
		laps_done[i] = last_position[i] > track->length / 2 ? -1 : 0;
	}
	// Not at time 0: `bt` takes that for a moment it has seen, and loops for ever on what it has not computed.
	// Due in the first step, and so in the first of every action: a new action counts at once.
	robots_due = kPhysicsSeconds;
	agent_distance = along_sum = 0;
	along_count = 0;
}

void keep_graphics_fields() {
	for (size_t i = 0; i < cars.size(); i++) {
		char *kept = (char *)&fresh_cars[i], *now = (char *)&cars[i];
		memcpy(kept, now, kCarInfoBytes);
		memcpy(kept + kCarPrivateOffset, now + kCarPrivateOffset, kCarPrivateBytes);
	}
}

// ---- stepping ---------------------------------------------------------------------------------
static void drive_robots() {
	situation.delta_seconds = kRobotSeconds;
	for (int i = 0; i < situation.car_count; i++) {
		CarElt *car = situation.cars[i];
		if (!(car->state & kCarNotSimulated)) car->robot->drive(car->robot->index, car, &situation);
	}
	robots_due += kRobotSeconds;
}

// What TORCS' race engine keeps up to date and robots read.
static void count_distance(int i) {
	CarElt &car = cars[i];
	float position = RtGetDistFromStart(&car), moved = position - last_position[i];
	if (moved < -track->length / 2) moved += track->length, laps_done[i]++;
	if (moved > track->length / 2) moved -= track->length, laps_done[i]--;
	last_position[i] = position;
	car.distance_from_start = position;
	car.laps = std::max(laps_done[i] + 1, 0);
	car.distance_raced = laps_done[i] * track->length + position;
	car.lap_seconds = situation.race_seconds;
	if (i == 0) agent_distance += moved;
}

static void rank_cars() {
	std::stable_sort(situation.cars, situation.cars + situation.car_count,
		[](const CarElt *a, const CarElt *b) { return a->distance_raced > b->distance_raced; });
	for (int i = 0; i < situation.car_count; i++) situation.cars[i]->race_position = i + 1;
}

static float speed_along(CarElt &car) {
	float axis = RtTrackSideTgAngleL(&car.track_position);
	return car.world_speed_x * cosf(axis) + car.world_speed_y * sinf(axis);
}

void step_world(int steps, const Controls &wanted) {
	controls = wanted;
	along_sum = along_count = 0;
	for (int i = 0; i < steps; i++) {
		situation.race_seconds += kPhysicsSeconds;
		clock_seconds += kPhysicsSeconds;
		if (situation.race_seconds >= robots_due - 1e-9) drive_robots();
		info.simulation.update(&situation, kPhysicsSeconds, -1);
		for (size_t k = 0; k < cars.size(); k++) count_distance((int)k);
		rank_cars();
		along_sum += speed_along(cars[0]);
		along_count++;
	}
}

// ---- reading ----------------------------------------------------------------------------------
// How far the axis turns from `metres` on over the next `ahead` metres; left is positive.
static float axis_turn(float metres, float ahead) {
	trackSeg *segment = segment_at(metres);
	float into = metres - segment->start_distance, sum = 0;
	while (ahead > 0) {
		float part = std::max(0.0f, std::min(ahead, segment->length - into));
		if (segment->type != kSegmentStraight) sum += (segment->type == kSegmentLeft ? part : -part) / segment->radius;
		ahead -= std::max(part, 1e-3f);
		into = 0;
		segment = segment->next;
	}
	return sum;
}

static void find_car_ahead(CarState &state) {
	state.gap_ahead = kGapLimitMetres;
	for (size_t i = 1; i < cars.size(); i++) {
		float gap = wrapped(last_position[i] - last_position[0]);
		if (gap >= state.gap_ahead || (cars[i].state & kCarNotSimulated)) continue;
		state.gap_ahead = gap;
		state.gap_left = cars[i].track_position.to_middle - cars[0].track_position.to_middle;
	}
}

CarState agent_state() {
	CarElt &car = cars[0];
	CarState state = {};
	state.speed_x = car.speed_x;
	state.speed_y = car.speed_y;
	state.angle = normalised(RtTrackSideTgAngleL(&car.track_position) - car.yaw);
	state.to_middle = car.track_position.to_middle;
	state.width = car.track_position.segment->width;
	state.along = speed_along(car);
	state.mean_along = along_count ? (float)(along_sum / along_count) : state.along;
	state.engine = car.engine_rads;
	state.red_line = car.engine_red_line_rads;
	state.fuel = car.fuel;
	state.lap_position = last_position[0];
	for (int i = 0; i < kLookAheads; i++) state.turns[i] = axis_turn(wrapped(last_position[0]), kLookAheadMetres[i]);
	find_car_ahead(state);
	state.gear = car.gear;
	state.damage = car.damage;
	state.race_position = car.race_position;
	state.state = car.state;
	state.seconds = situation.race_seconds;
	state.distance = agent_distance;
	return state;
}

tTrack *world_track() { return track; }
Situation *world_situation() { return &situation; }
RmInfo *world_info() { return &info; }
