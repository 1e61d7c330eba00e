// Goes into the page that trimesh.viewer.notebook.scene_to_html makes, whose globals are THREE, scene, camera, controls,
// renderer, tracklight and render. Light, colours, an orbit without roll, and keys.
(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const START = { azimuth: 0.45, elevation: 0.25, zoom: 1 };
  const view = Object.assign({}, START);
  let radius = 1, turning = false, last = 0;

  function say(text) {
    const line = document.createElement("p");
    line.textContent = text;
    line.style.cssText = "font: 1rem/1.5 system-ui, sans-serif; padding: 1rem; color: #777";
    document.body.append(line);
  }

  function draw() {
    const distance = view.zoom * radius / Math.sin(Math.PI * camera.fov / 360);
    const across = distance * Math.cos(view.elevation);
    camera.up.set(0, 1, 0);
    camera.position.set(across * Math.sin(view.azimuth), distance * Math.sin(view.elevation), across * Math.cos(view.azimuth));
    camera.position.add(controls.target);
    camera.lookAt(controls.target);
    camera.near = distance / 100;
    camera.far = distance * 10;
    camera.updateProjectionMatrix();
    tracklight.position.copy(camera.position);
    renderer.render(scene, camera);
    document.body.dataset.azimuth = view.azimuth.toFixed(3);
  }

  function turn(azimuth, elevation) {
    view.azimuth += azimuth;
    view.elevation = Math.min(1.5, Math.max(-1.5, view.elevation + elevation));
    draw();
  }

  function zoom(factor) {
    view.zoom = Math.min(4, Math.max(0.3, view.zoom * factor));
    draw();
  }

  function spin(now) {
    if (!turning) return;
    if (last) turn((now - last) * 6e-4, 0);
    last = now;
    requestAnimationFrame(spin);
  }

  function setSpin(on) {
    turning = on;
    last = 0;
    if (on) requestAnimationFrame(spin);
  }

  function paint() {
    scene.background = new THREE.Color(dark.matches ? 0x1d1f25 : 0xf5f6f8);
    draw();
  }

  function setUp() {
    controls.enabled = false; // trimesh's trackball rolls; ours keeps up above
    renderer.outputEncoding = THREE.sRGBEncoding;
    tracklight.intensity = 0.4;
    scene.add(new THREE.AmbientLight(0xffffff, 0.6));
    const ball = new THREE.Box3().setFromObject(scene).getBoundingSphere(new THREE.Sphere());
    controls.target.copy(ball.center);
    radius = 0.9 * ball.radius;

    const canvas = renderer.domElement;
    canvas.tabIndex = 0;
    canvas.style.touchAction = "none";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", document.title + ". Arrow keys turn, plus and minus zoom, 0 resets, space spins.");
    const held = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      setSpin(false);
      canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const others = [...held.values()].filter((other) => other.pointerId !== event.pointerId);
      if (others.length) {
        const gap = (a) => Math.hypot(a.clientX - others[0].clientX, a.clientY - others[0].clientY) + 1;
        zoom(gap(before) / gap(event));
      } else {
        turn((before.clientX - event.clientX) * 0.008, (event.clientY - before.clientY) * 0.008);
      }
      held.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => held.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => { // a page must still scroll: zoom once the view has the focus
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      zoom(Math.exp(event.deltaY * 0.001));
    }, { passive: false });
    const keys = {
      ArrowLeft: () => turn(-0.15, 0), ArrowRight: () => turn(0.15, 0),
      ArrowUp: () => turn(0, 0.15), ArrowDown: () => turn(0, -0.15),
      "+": () => zoom(0.9), "=": () => zoom(0.9), "-": () => zoom(1.1),
      "0": () => { Object.assign(view, START); draw(); },
      " ": () => setSpin(!turning),
    };
    window.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      if (event.key !== " ") setSpin(false);
      keys[event.key]();
    });
    window.addEventListener("resize", draw);
    dark.addEventListener("change", paint);
    window.render = draw;
    paint();
    setSpin(!still.matches);
    document.body.dataset.ready = "1";
  }

  (function wait() {
    if (typeof renderer === "undefined" || !renderer) say("This browser shows no WebGL. The GLB file is linked below.");
    else if (typeof controls === "undefined" || !controls) setTimeout(wait, 20); // frames out of sight get no animation frames
    else setUp();
  })();
})();
