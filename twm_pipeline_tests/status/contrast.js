// Texts whose contrast with what lies below them is less than WCAG 2.2 AA wants.
(() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [red, green, blue] = numbers(color).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const below = (item) => {
    for (let place = item; place; place = place.parentElement) {
      const color = getComputedStyle(place).backgroundColor;
      const alpha = numbers(color)[3] ?? 1;
      if (alpha === 1) return color;
      if (alpha > 0) throw new Error(`half transparent: ${place.className}`);
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((item) =>
    !item.closest(".unseen, title, script") &&
    [...item.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
  if (texts.length < 100) throw new Error(`only ${texts.length} texts`);
  return texts.flatMap((item) => {
    const style = getComputedStyle(item);
    const ink = item instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [light(ink), light(below(item))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    return ratio < (large ? 3 : 4.5) ? [`${item.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`] : [];
  });
})()
