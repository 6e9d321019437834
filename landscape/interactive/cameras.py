"""What plotly figures cannot say without JavaScript: turn one scene and the others turn with it."""

from __future__ import annotations

__all__ = ["LINKED_CAMERAS"]

LINKED_CAMERAS = """
(function () {
  "use strict";
  var plot = document.getElementById("{plot_id}");
  var busy = false;    // while a camera is being copied
  var waiting = null;  // the newest camera that came meanwhile; those between are passed over

  function scenes() {
    return Object.keys(plot.layout).filter(function (name) { return /^scene[0-9]*$/.test(name); });
  }

  // Which cameras an event is about: "scene2.camera" after a drag, "scene2.camera.eye" after a call or a button.
  function moved(event) {
    return scenes().filter(function (name) {
      return Object.keys(event).some(function (key) {
        return key === name + ".camera" || key.indexOf(name + ".camera.") === 0;
      });
    });
  }

  function copy(camera) {
    var update = {};
    // To all scenes, also the one that it came from: plotly sets every scene to the camera of its layout, which during
    // a drag is still that from before the drag. And a copy for each, as plotly changes the object that it was given.
    scenes().forEach(function (name) { update[name + ".camera"] = JSON.parse(JSON.stringify(camera)); });
    busy = true;
    function done() {
      var next = waiting;
      busy = false;
      waiting = null;
      if (next) { copy(next); }
    }
    // In a promise, so that after an error, too, it is done.
    Promise.resolve().then(function () { return window.Plotly.relayout(plot, update); }).then(done, done);
  }

  function follow(event) {
    var names = event ? moved(event) : [];
    // An event about all scenes at once is the echo of a copy, and would be answered for ever.
    if (names.length === 0 || names.length === scenes().length) { return; }
    var camera = event[names[0] + ".camera"] || plot.layout[names[0]].camera;
    if (busy) { waiting = camera; } else { copy(camera); }
  }

  plot.on("plotly_relayouting", follow);  // during a drag
  plot.on("plotly_relayout", follow);     // after it, and after any other change
})();
"""
"""For ``post_script`` of a figure's ``to_html``, ``write_html`` or ``show``: copies the camera of the scene that is
turned to all other scenes of the figure."""
