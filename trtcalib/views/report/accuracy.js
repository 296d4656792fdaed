// The section on accuracy: its words and tables stand in the page already; plots, the table of nodes and copying are added.

const PLOTS = {
  evaluation: (accuracy, at) => dotPlot(evaluationDots(accuracy.evaluations[at].result)),
  ablation: (accuracy, at) => dotPlot(ablationDots(accuracy.ablations[at].result)),
  sweep: (accuracy, at) => dotPlot(sweepDots(accuracy.sweeps[at].result)),
  "held-out": (accuracy, at) => dotPlot(heldOutDots(accuracy.sweeps[at].result)),
  network: (accuracy, at) => ({ height: NETWORK_HEIGHT, paint: (element) => drawNetwork(element, accuracy.sensitivities[at].result) }),
};

function dotPlot(drawn) {
  return { height: dotsHeight(drawn.rows.length, drawn.series.length), paint: (element) => drawDots(element, drawn) };
}

class Accuracy {
  constructor(accuracy, known) {
    this.accuracy = accuracy;
    const section = byId("accuracy");
    for (const figure of section.querySelectorAll(".drawn")) this.figure(figure, figure.dataset.plot, Number(figure.dataset.at));
    for (const box of section.querySelectorAll(".layers")) this.layers(box, accuracy.sensitivities[Number(box.dataset.at)].result, known);
    for (const line of section.querySelectorAll(".command")) startCopying(line);
  }

  figure(figure, kind, at) {
    const element = figure.querySelector(".plot");
    if (kind === "layers") {
      this.bars(figure, element, this.accuracy.sensitivities[at].result, at);
      return;
    }
    const { height, paint } = PLOTS[kind](this.accuracy, at);
    element.style.minHeight = `${height}px`;
    drawing.add(element, async () => paint(element));
  }

  /** Bars of the metric's loss or of the noise; where no node alone costs anything, the noise tells more. */
  bars(figure, element, result, at) {
    const choices = measures(result);
    let chosen = choices.find((measure) => result.layers.some((layer) => measure.alone(layer) > 0)) ?? choices[0];
    drawing.add(element, async () => drawLayers(element, result, chosen));
    element.style.minHeight = `${layersHeight(result)}px`;
    if (choices.length > 1) {
      const choose = (event) => {
        chosen = choices.find((measure) => measure.key === event.target.value);
        drawing.redraw(element);
      };
      figure.querySelector("figcaption").append(h("fieldset", { class: "switch", onchange: choose }, h("legend", { class: "unseen" }, "Bars tell"),
        ...choices.map((measure) => h("label", {}, h("input", { type: "radio", name: `measure-${at}`, value: measure.key, checked: measure === chosen }), h("span", {}, measure.label)))));
    }
  }

  layers(box, result, known) {
    if (!result.layers.length) return;
    const link = (row) => (known.has(row.output) ? tensorLink(row.output) : null);
    const grid = new Grid(box, { label: "What each node costs", columns: layerColumns(result), link, sort: { key: "rank", down: false }, selected: () => null });
    grid.show(result.layers);
  }
}

/** Copies what is shown: names in it cannot smuggle in what is not. */
function startCopying(line) {
  const [text, button] = [line.querySelector("code"), line.querySelector("button")];
  button.hidden = false;
  button.addEventListener("click", async () => {
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      getSelection().selectAllChildren(text);
      done = "Selected";
    }
    button.textContent = done;
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  });
}
