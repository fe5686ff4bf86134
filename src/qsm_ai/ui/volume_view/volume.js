// Shows what the page sends: a NIfTI file, a mask, a window and colours (see ../volume.py).

import { MULTIPLANAR_TYPE, Niivue, NVImage, SHOW_RENDER, SLICE_TYPE } from "./niivue.js";

const OUTSIDE = -1000; // below every window, and so as black and clear as it can be

const canvas = document.getElementById("volume");
const told = document.getElementById("told");
let viewer;
let shown;
let latest;

function tell(type, content) {
  window.parent.postMessage({ isStreamlitMessage: true, type, ...content }, "*");
}

async function open() {
  const made = new Niivue({
    backColor: [11 / 255, 14 / 255, 16 / 255, 1],
    crosshairColor: [240 / 255, 176 / 255, 74 / 255, 1],
    crosshairWidth: 1,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    multiplanarLayout: MULTIPLANAR_TYPE.GRID,
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    show3Dcrosshair: true,
    dragAndDropEnabled: false,
    logLevel: "error",
  });
  await made.attachToCanvas(canvas);
  made.setSliceType(SLICE_TYPE.MULTIPLANAR);
  made.onLocationChange = (place) => {
    const value = place.values[0]?.value;
    if (value === undefined || value <= OUTSIDE) told.textContent = "";
    else told.textContent = `${value.toPrecision(3)} ${latest.unit}`;
  };
  return made;
}

function content(bytes) {
  return bytes.slice().buffer;
}

async function load({ name, volume, mask }) {
  const image = await NVImage.new(content(volume), name);
  if (mask) {
    const brain = await NVImage.new(content(mask), "mask.nii.gz");
    image.img = image.img.map((value, voxel) => (brain.img[voxel] ? value : OUTSIDE));
  }
  for (const old of [...viewer.volumes]) viewer.removeVolume(old);
  viewer.addVolume(image);
}

async function draw() {
  const wanted = latest;
  viewer ??= await open();
  if (shown !== wanted.identity) {
    await load(wanted);
    shown = wanted.identity;
  }
  const [image] = viewer.volumes;
  image.cal_min = wanted.low;
  image.cal_max = wanted.high;
  viewer.addColormap("page", wanted.colours);
  image.colormap = "page";
  viewer.setCrosshairWidth(wanted.crosshair ? 1 : 0);
  viewer.updateGLVolume();
  document.body.dataset.state = "drawn";
}

// One after the other: a window that moves while a volume is read is drawn when that is done.
let drawing = Promise.resolve();

window.addEventListener("message", ({ data, source }) => {
  if (source !== window.parent || data.type !== "streamlit:render") return;
  latest = data.args;
  drawing = drawing.then(draw).catch(() => {
    document.body.dataset.state = "failed";
    told.textContent = "This browser cannot draw volumes: it needs WebGL 2. The slices show the same map.";
  });
});

tell("streamlit:componentReady", { apiVersion: 1 });
tell("streamlit:setFrameHeight", { height: 640 });
