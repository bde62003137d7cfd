// The picture: an off-screen OpenGL context and TORCS' graphics module. See screen.cpp.
//
// Copyright the asyncrl authors. Free software under the GNU General Public License, version 2
// or later; see LICENSE in this folder.
#pragma once
#include <string>
#include <vector>

// Make pictures of width x height and, unless `view_scale` is 0, views that many times as large.
bool open_screen(int width, int height, int view_scale);
// Load the graphics module and the track's scene, then (once the race stands) the cars.
bool load_scene(const std::string &library_folder);
void load_car_models();
// Draw the race as it stands, RGB rows from the top: for the agent, or large for people.
const std::vector<unsigned char> &draw();
const std::vector<unsigned char> &draw_view(int scale);
