"""What plotly figures cannot say without JavaScript: turn one scene and the others turn with it."""

from __future__ import annotations

__all__ = ["LINKED_CAMERAS"]

LINKED_CAMERAS = """
(function () {
  "use strict";
  var plot = document.getElementById("{plot_id}");
  var leader = null;   // the scene whose camera is being copied, while that lasts
  var waiting = null;  // the newest camera that came meanwhile; those between are passed over

  function scenes() {
    return Object.keys(plot.layout).filter(function (name) { return /^scene[0-9]*$/.test(name); });
  }

  // The scene whose camera an event is about: "scene2.camera" after a drag, "scene2.camera.eye" after a call or button.
  function moved(event) {
    return scenes().find(function (name) {
      return Object.keys(event).some(function (key) {
        return key === name + ".camera" || key.indexOf(name + ".camera.") === 0;
      });
    });
  }

  function copy(from, camera) {
    var update = {};
    scenes().forEach(function (name) {
      // A copy for each: plotly changes the object that it was given.
      if (name !== from) { update[name + ".camera"] = JSON.parse(JSON.stringify(camera)); }
    });
    if (Object.keys(update).length === 0) { return; }
    leader = from;
    function done() {
      var next = waiting;
      leader = waiting = null;
      if (next) { copy(next.from, next.camera); }
    }
    // In a promise, so that an error does not leave a leader behind either.
    Promise.resolve().then(function () { return window.Plotly.relayout(plot, update); }).then(done, done);
  }

  function follow(event) {
    var from = event && moved(event);
    if (!from) { return; }
    // While a camera is copied, events about other scenes are echoes of the copying: answering them would never end.
    if (leader !== null && from !== leader) { return; }
    var camera = event[from + ".camera"] || plot.layout[from].camera;
    if (!camera) { return; }
    if (leader === null) { copy(from, camera); } else { waiting = { from: from, camera: camera }; }
  }

  plot.on("plotly_relayouting", follow);  // during a drag
  plot.on("plotly_relayout", follow);     // after it, and after any other change
})();
"""
"""For ``post_script`` of a figure's ``to_html``, ``write_html`` or ``show``: copies the camera of the scene that is
turned to all other scenes of the figure."""
