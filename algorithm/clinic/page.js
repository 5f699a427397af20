"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const lesions = new Map(data.lesions.map((lesion) => [lesion.number, lesion]));
  const table = document.getElementById("lesions");
  const state = document.documentElement.dataset;
  const LESION_FILL = 0.1;
  let chosen = null;
  let viewer = null;

  function rows() {
    return table ? [...table.tBodies[0].rows] : [];
  }

  function choose(number, scroll) {
    if (!lesions.has(number)) return;
    chosen = number;
    for (const element of document.querySelectorAll("[data-lesion]")) {
      element.classList.toggle("on", Number(element.dataset.lesion) === number);
    }
    rows().find((row) => Number(row.dataset.lesion) === number)?.scrollIntoView({ block: "nearest" });
    if (!viewer) return;
    viewer.goTo(lesions.get(number).ras);
    if (scroll) document.getElementById("viewer").scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  function step(by) {
    const order = rows().map((row) => Number(row.dataset.lesion));
    const at = chosen === null ? (by > 0 ? -1 : 0) : order.indexOf(chosen);
    choose(order[(at + by + order.length) % order.length], false);
  }

  function sortBy(column, heading) {
    const headings = [...table.tHead.rows[0].cells];
    const before = heading.getAttribute("aria-sort");
    const falling = before === "none" ? column > 0 : before === "ascending";
    headings.forEach((each) => each.hasAttribute("aria-sort") && each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (row) => Number(row.cells[column].dataset.value);
    const sorted = rows().sort((a, b) => (falling ? value(b) - value(a) : value(a) - value(b)));
    table.tBodies[0].append(...sorted);
  }

  if (table) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.querySelector("button")?.addEventListener("click", () => sortBy(column, heading));
    });
  }
  for (const element of document.querySelectorAll("[data-lesion]")) {
    element.addEventListener("click", () => choose(Number(element.dataset.lesion), true));
  }
  for (const row of rows()) {
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(Number(row.dataset.lesion), true);
      }
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (next) {
        event.preventDefault();
        next.focus();
      }
    });
  }

  function withoutViewer() {
    state.viewer = "none";
    document.querySelector("#viewer .stage").hidden = true;
    document.querySelectorAll("#viewer .hint").forEach((hint) => { hint.hidden = hint.id !== "no-viewer"; });
  }

  async function startViewer() {
    state.viewer = "loading";
    if (!document.createElement("canvas").getContext("webgl2")) return withoutViewer();
    const { Niivue, NVImage, SHOW_RENDER } = niivue;
    const nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.37, 0.89, 1, 0.6], crosshairWidth: 0.45, crosshairWidthUnit: "percent", crosshairGap: 0,
      isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false, loadingText: "",
      multiplanarShowRender: SHOW_RENDER.NEVER,
      logLevel: "error", isOrientationTextVisible: true, fontMinPx: 18,
    });
    await nv.attachToCanvas(document.getElementById("canvas"));
    nv.addColormap("hot-iron", { R: [0, 255, 255, 255], G: [0, 0, 128, 255], B: [0, 0, 0, 255], A: [0, 224, 240, 255], I: [0, 128, 192, 255] });
    const load = async (id, [low, high], how) => {
      const holder = document.getElementById(id);
      const image = await NVImage.loadFromBase64({ base64: holder.textContent, name: `${id}.nii.gz`, ...how });
      holder.remove();
      [image.cal_min, image.cal_max] = [low, high]; // given as options, a 0 would count as none and be guessed
      return image;
    };
    nv.addVolume(await load("ct", data.ctWindow, { colormap: "gray" }));
    nv.addVolume(await load("pet", [0, data.topSuv], { colormap: "hot-iron", opacity: 0.7 }));
    const mask = await load("mask", [0, 1], { colormap: "gray", opacity: LESION_FILL });
    mask.setColormapLabel({ R: [0, 95], G: [0, 227], B: [0, 255], A: [0, 255], labels: ["", "Lesion"] });
    nv.addVolume(mask);
    nv.setAtlasOutline(1);
    const reading = document.getElementById("reading");
    nv.onLocationChange = (location) => {
      const [right, anterior, superior] = location.mm;
      const [hu, suv, inside] = location.values.map((each) => each.value);
      const side = (value, plus, minus) => `${Math.abs(value).toFixed(0)} ${value >= 0 ? plus : minus}`;
      reading.textContent = `SUV ${suv.toFixed(1)} · ${hu.toFixed(0)} HU${inside > 0 ? " · in a lesion" : ""} · ` +
        `${side(right, "R", "L")}, ${side(anterior, "A", "P")}, ${side(superior, "S", "I")} mm`;
    };
    viewer = {
      nv,
      goTo(ras) {
        nv.scene.crosshairPos = nv.mm2frac(ras);
        nv.createOnLocationChange();
        nv.drawScene();
      },
    };
    wireControls(nv);
    if (chosen !== null) viewer.goTo(lesions.get(chosen).ras);
    else if (data.lesions.length) viewer.goTo(data.lesions[0].ras);
    else nv.createOnLocationChange();
    window.reportViewer = viewer;
    state.viewer = "ready";
  }

  function press(group, button) {
    for (const each of group) each.setAttribute("aria-pressed", String(each === button));
  }

  function wireControls(nv) {
    const together = [
      { sliceType: nv.sliceTypeAxial, position: [0, 0, 0.5, 1] },
      { sliceType: nv.sliceTypeCoronal, position: [0.5, 0, 0.27, 1] },
      { sliceType: nv.sliceTypeSagittal, position: [0.77, 0, 0.23, 1] },
    ];
    nv.setCustomLayout(together);
    const planes = { axial: nv.sliceTypeAxial, coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal };
    const show = (name) => {
      if (name === "all") return nv.setCustomLayout(together);
      nv.clearCustomLayout();
      nv.setSliceType(planes[name]);
    };
    const planeButtons = document.querySelectorAll("[data-plane]");
    for (const button of planeButtons) {
      button.addEventListener("click", () => { press(planeButtons, button); show(button.dataset.plane); });
    }
    const windowButtons = document.querySelectorAll("[data-window]");
    for (const button of windowButtons) {
      button.addEventListener("click", () => {
        press(windowButtons, button);
        [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = button.dataset.window.split(",").map(Number);
        nv.updateGLVolume();
      });
    }
    document.getElementById("pet-opacity").addEventListener("input", (event) => nv.setOpacity(1, event.target.value / 100));
    document.getElementById("pet-top").addEventListener("input", (event) => {
      document.getElementById("pet-top-shown").textContent = event.target.value;
      nv.volumes[1].cal_max = Number(event.target.value);
      nv.updateGLVolume();
    });
    document.getElementById("show-lesions").addEventListener("change", (event) => {
      nv.opts.atlasOutline = event.target.checked ? 1 : 0;
      nv.setOpacity(2, event.target.checked ? LESION_FILL : 0);
    });
    document.getElementById("previous")?.addEventListener("click", () => step(-1));
    document.getElementById("next")?.addEventListener("click", () => step(1));
  }

  const section = document.getElementById("viewer");
  if (section) {
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      startViewer().catch((error) => { console.error(error); withoutViewer(); });
    }, { rootMargin: "800px" });
    seen.observe(section);
  }
})();
