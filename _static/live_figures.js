// Draws the figures of helpers/live_figures.py: each <div class="live"> holds its data as JSON.
(function () {
  "use strict";

  // The built book loads this file once; Bokeh's script lies beside it and is fetched if needed.
  const here = document.currentScript && document.currentScript.src;

  function make(tag, attributes, parent) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  }

  // Text that follows the figure, and is read out when it changes.
  function makeText(parent) {
    return make("output", { class: "live-said", "aria-live": "polite" }, parent);
  }

  function loadPicture(uri) {
    return new Promise((resolve, reject) => {
      const picture = new Image();
      picture.onload = () => resolve(picture);
      picture.onerror = () => reject(new Error("a picture of a live figure cannot be read"));
      picture.src = uri;
    });
  }

  // Draw image number i of a sheet of images, as many pixels as it has.
  function drawTile(canvas, picture, sheet, i) {
    const x = (i % sheet.columns) * sheet.width;
    const y = Math.floor(i / sheet.columns) * sheet.height;
    const size = [sheet.width, sheet.height];
    canvas.getContext("2d").drawImage(picture, x, y, ...size, 0, 0, canvas.width, canvas.height);
  }

  // Direction of an arrow key, x to the right and y up.
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  function onArrows(element, move) {
    element.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!(arrow || event.key === "Home") || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(arrow, event);
    });
  }

  // --- the latent plane and its decoder -------------------------------------------------------

  function readHalves(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const halves = new Uint16Array(bytes.buffer);
    return Float32Array.from(halves, (half) => {
      const sign = half & 0x8000 ? -1 : 1;
      const exponent = (half >> 10) & 31;
      const fraction = half & 1023;
      if (exponent === 0) return sign * fraction * 2 ** -24;
      return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    });
  }

  function readDecoder(data) {
    const weights = readHalves(data.weights);
    const layers = [];
    let start = 0;
    for (let i = 1; i < data.widths.length; i++) {
      const [inputs, outputs] = [data.widths[i - 1], data.widths[i]];
      const matrix = weights.subarray(start, start + inputs * outputs);
      start += inputs * outputs;
      layers.push({ matrix, outputs, offset: weights.subarray(start, start + outputs) });
      start += outputs;
    }
    return function decode(z) {
      let values = z;
      layers.forEach((layer, depth) => {
        const sums = Float32Array.from(layer.offset);
        for (let i = 0; i < values.length; i++) {
          if (values[i] === 0) continue; // ReLU leaves many
          const row = i * layer.outputs;
          for (let j = 0; j < sums.length; j++) sums[j] += values[i] * layer.matrix[row + j];
        }
        const last = depth === layers.length - 1;
        values = sums.map((x) => (last ? 1 / (1 + Math.exp(-x)) : Math.max(0, x)));
      });
      return values;
    };
  }

  async function drawDecoder(figure, data) {
    const decode = readDecoder(data);
    const [height, width] = data.shape;
    const span = data.span;
    const grid = 12;

    function decoded(z) {
      const picture = new ImageData(width, height);
      decode(z).forEach((value, i) => picture.data.fill(255 * value + 0.5, 4 * i, 4 * i + 3));
      for (let i = 3; i < picture.data.length; i += 4) picture.data[i] = 255;
      return picture;
    }

    const row = make("div", { class: "live-row" }, figure);
    const plane = make("canvas", {
      class: "live-plane", width: grid * width, height: grid * height, tabindex: 0,
      role: "application", "aria-label": "Latent plane; the arrow keys move the cross",
    }, row);
    const side = make("div", {}, row);
    const picture = make("canvas", {
      class: "live-picture", width, height, role: "img", "aria-label": "Decoded image",
    }, side);
    const said = makeText(side);

    const background = document.createElement("canvas");
    [background.width, background.height] = [plane.width, plane.height];
    for (let i = 0; i < grid * grid; i++) {
      const [column, line] = [i % grid, Math.floor(i / grid)];
      const z = [column, grid - 1 - line].map((n) => span * ((2 * n + 1) / grid - 1));
      background.getContext("2d").putImageData(decoded(z), column * width, line * height);
    }

    let z = [0, 0];
    let waiting = false;

    function draw() {
      waiting = false;
      picture.getContext("2d").putImageData(decoded(z), 0, 0);
      const context = plane.getContext("2d");
      context.globalAlpha = 1;
      context.fillRect(0, 0, plane.width, plane.height);
      context.globalAlpha = 0.6;
      context.drawImage(background, 0, 0);
      context.globalAlpha = 1;
      const x = ((z[0] / span + 1) / 2) * plane.width;
      const y = ((1 - z[1] / span) / 2) * plane.height;
      for (const [colour, thickness] of [["black", 5], ["#E69F00", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = thickness;
        context.beginPath();
        context.moveTo(x - 14, y);
        context.lineTo(x + 14, y);
        context.moveTo(x, y - 14);
        context.lineTo(x, y + 14);
        context.stroke();
      }
      said.textContent = `z1 = ${z[0].toFixed(2)}, z2 = ${z[1].toFixed(2)}`;
    }

    function moveTo(place) {
      z = place.map((value) => Math.min(span, Math.max(-span, value)));
      if (!waiting) requestAnimationFrame(draw); // at most once a frame
      waiting = true;
    }

    function follow(event) {
      const box = plane.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height];
      moveTo([span * (2 * x - 1), span * (1 - 2 * y)]);
    }

    plane.addEventListener("pointerdown", (event) => {
      plane.setPointerCapture(event.pointerId);
      follow(event);
    });
    plane.addEventListener("pointermove", (event) => {
      if (event.buttons) follow(event);
    });
    onArrows(plane, (arrow, event) => {
      const step = event.shiftKey ? 0.5 : 0.1;
      moveTo(arrow ? z.map((value, i) => value + step * arrow[i]) : [0, 0]);
    });
    draw();
  }

  // --- the slices of a scan -------------------------------------------------------------------

  async function drawSlices(figure, data) {
    const sheet = data.slices;
    const picture = await loadPicture(sheet.uri);
    const scale = 3; // canvas pixels a voxel, so that lines are thinner than voxels
    const last = data.voxels.length - 1;

    const row = make("div", { class: "live-row" }, figure);
    const canvas = make("canvas", {
      class: "live-slice", width: scale * sheet.width, height: scale * sheet.height, tabindex: 0,
      role: "application", "aria-label": "Axial slice; the arrow keys choose another",
    }, row);
    const controls = make("div", { class: "live-controls" }, row);
    const slider = make("input", {
      type: "range", min: 0, max: last, value: data.start, "aria-label": "Slice",
    }, controls);
    const shown = {};
    const inPatches = data.patches.some((patches) => patches.length);
    const choices = inPatches ? ["lesion outline", "patch grid", "lesion map"] : ["lesion outline"];
    for (const name of choices) {
      const label = make("label", {}, controls);
      shown[name] = make("input", { type: "checkbox" }, label);
      shown[name].checked = name === "lesion outline";
      label.append(" " + name);
      shown[name].addEventListener("change", draw);
    }
    const said = makeText(controls);

    function draw() {
      const z = Number(slider.value);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.setTransform(1, 0, 0, 1, 0, 0);
      drawTile(canvas, picture, sheet, z);
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const [height, width] = data.patch;
      for (const [row, column, , colour] of data.patches[z]) {
        if (shown["lesion map"].checked) {
          context.globalAlpha = 0.55;
          context.fillStyle = colour;
          context.fillRect(column, row, width, height);
          context.globalAlpha = 1;
        }
        if (shown["patch grid"].checked) {
          context.lineWidth = 1 / scale;
          context.strokeStyle = data.colours.grid;
          context.strokeRect(column, row, width, height);
        }
      }
      if (shown["lesion outline"].checked) {
        context.lineWidth = 0.8;
        context.strokeStyle = data.colours.lesion;
        context.beginPath();
        for (const [row, column, toRow, toColumn] of data.outlines[z]) {
          context.moveTo(column, row);
          context.lineTo(toColumn, toRow);
        }
        context.stroke();
      }
      const fullest = Math.max(0, ...data.patches[z].map((patch) => patch[2]));
      said.textContent = `Slice ${z} (0 to ${last})\nLesion voxels: ${data.voxels[z]}`;
      if (inPatches) said.textContent += `\nLargest share of lesion in a patch: ${fullest.toFixed(2)}`;
    }

    function step(by) {
      slider.value = Number(slider.value) + by;
      draw();
    }

    slider.addEventListener("input", draw);
    // The slider would do this by itself, were it not for JupyterLab, which takes the keys first.
    for (const element of [canvas, slider]) {
      onArrows(element, (arrow) => step(arrow ? arrow[0] + arrow[1] : data.start - slider.value));
    }
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return; // the page is being scrolled past it
      event.preventDefault();
      step(-Math.sign(event.deltaY));
    }, { passive: false });
    draw();
  }

  // --- points in the plane --------------------------------------------------------------------

  let bokeh = null;

  function loadBokeh() {
    if (window.Bokeh) return Promise.resolve();
    bokeh = bokeh || new Promise((resolve, reject) => {
      const script = make("script", { src: new URL("bokeh.min.js", here) }, document.head);
      script.onload = resolve;
      script.onerror = () => reject(new Error("Bokeh's script cannot be read"));
    });
    return bokeh;
  }

  // The plot is drawn on a canvas, so the colours of the page have to be handed on to it.
  function followColours(figure, plot) {
    function paint() {
      const colour = getComputedStyle(figure).color;
      plot.setv({ background_fill_color: null, border_fill_color: null, outline_line_color: null });
      for (const part of [...plot.below, ...plot.left, ...plot.center, ...plot.above]) {
        if (part.type === "LinearAxis") {
          part.setv({
            axis_label_text_color: colour, major_label_text_color: colour, axis_line_color: colour,
            major_tick_line_color: colour, minor_tick_line_color: null,
          });
        } else if (part.type === "Grid") {
          part.setv({ grid_line_color: colour, grid_line_alpha: 0.15 });
        } else if (part.type === "Legend") {
          part.setv({ label_text_color: colour, background_fill_alpha: 0, border_line_color: null });
        }
      }
    }
    paint();
    new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  // The nearest point in the direction of the arrow, at most 45 degrees to either side of it.
  function nearest(points, from, [right, up], extent) {
    let [best, least] = [from, Infinity];
    points.forEach((point, i) => {
      const [x, y] = [0, 1].map((axis) => (point[axis] - points[from][axis]) / extent[axis]);
      const [along, beside] = [x * right + y * up, Math.abs(x * up - y * right)];
      const far = Math.hypot(along, beside);
      if (along > 0 && along >= beside && far < least) [best, least] = [i, far];
    });
    return best;
  }

  async function drawScatter(figure, data) {
    const [sheet, points] = [data.images, data.points];
    const [picture] = await Promise.all([loadPicture(sheet.uri), loadBokeh()]);
    const row = make("div", { class: "live-row" }, figure);
    const main = make("div", {
      class: "live-main", tabindex: 0, role: "application",
      "aria-label": "Points; the arrow keys walk from one to the next",
    }, row);
    const side = make("div", {}, row);
    const canvas = make("canvas", {
      class: "live-picture", width: sheet.width, height: sheet.height, role: "img",
      "aria-label": "Image of the chosen point",
    }, side);
    const said = makeText(side);

    const [view] = (await Bokeh.embed.embed_item(data.plot, main)).roots;
    const plot = view.model;
    followColours(figure, plot);
    const ring = plot.document.get_model_by_name("chosen");
    const extent = [0, 1].map((axis) => {
      const values = points.map((point) => point[axis]);
      return Math.max(...values) - Math.min(...values) || 1;
    });
    let chosen;

    function choose(i) {
      chosen = i;
      drawTile(canvas, picture, sheet, i);
      said.textContent = data.told[i];
      ring.data = { x: [points[i][0]], y: [points[i][1]] };
    }

    // Bokeh tells each group of points what lies under the pointer, or was tapped.
    for (const { data_source: group } of plot.renderers.filter((r) => r.data_source !== ring)) {
      group.inspect.connect(() => {
        const [hit] = group.inspected.indices;
        if (hit !== undefined) choose(group.data.row[hit]);
      });
    }
    onArrows(main, (arrow) => choose(arrow ? nearest(points, chosen, arrow, extent) : 0));
    choose(0);
  }

  // --- all of them ----------------------------------------------------------------------------

  const DRAW = { scatter: drawScatter, decoder: drawDecoder, slices: drawSlices };

  async function draw(figure) {
    figure.dataset.drawn = "not yet";
    try {
      const data = JSON.parse(figure.querySelector("script").textContent);
      await DRAW[figure.dataset.kind](figure, data);
      figure.dataset.drawn = "yes";
    } catch (error) {
      figure.dataset.drawn = "no";
      make("p", { role: "alert" }, figure).textContent = `This figure failed: ${error.message}`;
      throw error;
    }
  }

  function drawAll() {
    document.querySelectorAll(".live:not([data-drawn])").forEach(draw);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", drawAll);
  else drawAll();
})();
