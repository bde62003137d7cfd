// Binary layout of TORCS 1.3.7 as Debian builds it (package torcs 1.3.7+dfsg-5*, amd64).
//
// Debian ships no TORCS headers, so these are our own declarations of just the fields the host
// touches; the numbers are what offsetof() and sizeof() print against the headers of Debian's
// source package. A name at_N stands for the bytes from offset N on that we leave alone.
// asyncrl/envs/torcs/build.py refuses any other version of the package, and the host checks the
// values it reads at start. Type names are TORCS' own: they are part of its linker symbols.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#pragma once
#include <cstddef>

struct CarElt;
struct RmInfo;
struct RobotItf;
struct Situation;
struct tTrack;
struct trackSeg;

struct tCarPitSetup {
	alignas(8) char opaque[936];
};

// The function tables through which TORCS' modules are called.
struct TrackModule {
	tTrack *(*build)(char *path);
	void *others[8];
};
struct GraphicModule {
	int (*init_track)(tTrack *);
	int (*init_view)(int x, int y, int width, int height, int flag, void *screen);
	int (*init_cars)(Situation *);
	int (*refresh)(Situation *);
	void *others[3];
};
struct SimulationModule {
	void (*init)(int cars, tTrack *, float fuel_factor, float damage_factor);
	void (*configure)(CarElt *, RmInfo *);
	void *reconfigure;
	void (*update)(Situation *, double seconds, int telemetry);
	void (*shutdown)();
};

struct trackSeg {
	char at_0[12];
	int type;
	char at_16[8];
	float length;
	float width;
	char at_32[8];
	float start_distance;
	float radius;
	char at_48[184];
	trackSeg *next;
	char at_240[24];
};
static_assert(sizeof(trackSeg) == 264, "trackSeg");

struct tTrkLocPos {
	trackSeg *segment;
	char at_8[4];
	float to_start;
	float to_right;
	float to_middle;
	char at_24[8];
};
static_assert(sizeof(tTrkLocPos) == 32, "tTrkLocPos");

struct tTrackOwnPit {
	char at_0[32];
	int current_car;
	char at_36[8];
	int next_free_car;
	CarElt *cars[4];
};
static_assert(sizeof(tTrackOwnPit) == 80, "tTrackOwnPit");

struct tTrack {
	const char *name;
	char at_8[40];
	int segment_count;
	char at_52[4];
	float length;
	float width;
	int pits_type;
	int max_pits;
	char at_72[56];
	tTrackOwnPit *pits;
	int cars_per_pit;
	int pit_count;
	trackSeg *last_segment;
	char at_152[96];
};
static_assert(sizeof(tTrack) == 248, "tTrack");

struct CarElt {
	int index;
	char name[32];
	char team_name[32];
	char car_name[32];
	char category[32];
	int race_number;
	int start_rank;
	int driver_type;
	int skill_level;
	char at_148[124];
	float rear_wheel_radius;
	char at_276[52];
	float x;
	float y;
	float z;
	char at_340[8];
	float yaw;
	float speed_x;
	float speed_y;
	char at_360[64];
	float world_speed_x;
	float world_speed_y;
	char at_432[112];
	tTrkLocPos track_position;
	int state;
	char at_580[124];
	double lap_seconds;
	char at_712[24];
	int laps;
	char at_740[4];
	int remaining_laps;
	int race_position;
	char at_752[32];
	float distance_raced;
	float distance_from_start;
	char at_792[8];
	tTrackOwnPit *pit;
	char at_808[8];
	void *penalties[2];
	char at_832[8];
	void *robot_parameters;
	void *car_parameters;
	int driver_index;
	char module_name[32];
	char at_892[452];
	int gear;
	float fuel;
	float engine_rads;
	float engine_red_line_rads;
	char at_1360[20];
	float gear_ratios[10];
	int gear_count;
	int gear_offset;
	char at_1428[36];
	int collision;
	char at_1468[28];
	int damage;
	char at_1500[36];
	float steer;
	float accelerator;
	float brake;
	float clutch;
	int wanted_gear;
	char at_1556[164];
	tCarPitSetup pit_setup;
	RobotItf *robot;
	char at_2664[8];
};
static_assert(sizeof(CarElt) == 2672, "CarElt");

struct Situation {
	int car_count;
	int total_laps;
	int race_state;
	int race_type;
	int max_damage;
	char at_20[12];
	double delta_seconds;
	double race_seconds;
	char at_48[8];
	CarElt **cars;
};
static_assert(sizeof(Situation) == 64, "Situation");

struct RmInfo {
	CarElt *cars;
	Situation *situation;
	tTrack *track;
	char at_24[48];
	TrackModule tracks;
	GraphicModule graphics;
	SimulationModule simulation;
	char at_240[160];
};
static_assert(sizeof(RmInfo) == 400, "RmInfo");

struct ModInfo {
	char *name;
	char at_8[8];
	int (*init)(int index, void *interface);
	char at_24[4];
	int index;
	char at_32[8];
};
static_assert(sizeof(ModInfo) == 40, "ModInfo");

struct RobotItf {
	void (*new_track)(int index, tTrack *, void *car_parameters, void **setup, Situation *);
	void (*new_race)(int index, CarElt *, Situation *);
	void (*end_race)(int index, CarElt *, Situation *);
	void (*drive)(int index, CarElt *, Situation *);
	int (*pit_command)(int index, CarElt *, Situation *);
	void (*shutdown)(int index);
	int index;
	char at_52[4];
};
static_assert(sizeof(RobotItf) == 56, "RobotItf");

struct tGfOs {
	char at_0[64];
	double (*clock)();
};
static_assert(sizeof(tGfOs) == 72, "tGfOs");

static_assert(offsetof(CarElt, x) == 328 && offsetof(CarElt, robot_parameters) == 840, "CarElt");
static_assert(offsetof(CarElt, steer) == 1536 && offsetof(CarElt, pit_setup) == 1720, "CarElt");
static_assert(offsetof(RmInfo, simulation) == 200, "RmInfo");

// Parts of CarElt that the host saves, restores or clears as a whole.
static const size_t kCarInfoBytes = 328;                      // `info`, from offset 0
static const size_t kCarPrivateOffset = 840, kCarPrivateBytes = 696;  // `priv`
static const size_t kCarControlOffset = 1536, kCarControlBytes = 172;  // `ctrl`

// Values of TORCS' enumerations.
enum : int {
	kTrackToRight = 0, kSegmentRight = 1, kSegmentLeft = 2, kSegmentStraight = 3, kPitsOnTrackSide = 1, kPitFree = -1,
	kDriverRobot = 2, kRaceRunning = 1, kRaceTypeRace = 2, kCarNotSimulated = 0xff,
	kReadStandard = 1, kReadCreate = 4, kReadPrivate = 8, kMergeAll = 15,
};

// TORCS' own functions and its table of operating-system calls.
extern tGfOs GfOs;
void SetLocalDir(char *);
void SetLibDir(char *);
void SetDataDir(char *);
void *GfParmReadFile(const char *path, int mode);
void *GfParmMergeHandles(void *reference, void *target, int mode);
const char *GfParmGetStr(void *, const char *section, const char *key, const char *otherwise);
float GfParmGetNum(void *, const char *section, const char *key, const char *unit, float otherwise);
void RtTrackLocal2Global(tTrkLocPos *, float *x, float *y, int flag);
float RtTrackSideTgAngleL(tTrkLocPos *);
float RtTrackHeightL(tTrkLocPos *);
float RtGetDistFromStart(CarElt *);
void RtInitCarPitSetup(void *car_parameters, tCarPitSetup *, bool minmax_only);
