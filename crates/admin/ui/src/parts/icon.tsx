// Line icons, drawn here so that nothing comes from outside.

const PATHS = {
  overview: "M4 13h6V4H4zM14 20h6v-9h-6zM14 7h6V4h-6zM4 20h6v-3H4z",
  devices: "M7 3h10v18H7zM11 17.5h2",
  rollouts: "M4 18 10 12l4 3 6-8M15 7h5v5",
  firmware: "M8 8h8v8H8zM10 4v4m4-4v4m-4 8v4m4-4v4M4 10h4m-4 4h4m8-4h4m-4 4h4",
  upload: "M12 16V5m-5 5 5-5 5 5M5 19h14",
  broker: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6M5 5a10 10 0 0 0 0 14M19 5a10 10 0 0 1 0 14M8 8a6 6 0 0 0 0 8m8-8a6 6 0 0 1 0 8",
  audit: "M6 3h9l4 4v14H6zM14 3v5h5M9 12h7m-7 4h7",
  success: "m5 12.5 4.5 4.5L19 7.5",
  warning: "M12 4 2.8 20h18.4zM12 10v4.5m0 2.5v.5",
  danger: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 7.5v6m0 2.5v.5",
  close: "m6 6 12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  out: "M14 4H5v16h9M10 12h11m-4-4 4 4-4 4",
  pause: "M8 5v14m8-14v14",
  play: "m8 5 11 7-11 7z",
  stop: "M6 6h12v12H6z",
  again: "M20 11a8 8 0 1 0-1 5m1-11v6h-6",
  back: "M4 10h11a5 5 0 0 1 0 10h-3M9 5 4 10l5 5",
  snow: "M12 3v18M4.5 7.5l15 9m0-9-15 9",
  key: "M15 9a4 4 0 1 0-3.5 4l1.5 1.5V17h2v2h4v-3l-5-5a4 4 0 0 0 1-2M8.5 8.5v.1",
  edit: "m4 20 1-4L16 5l3 3L8 19zM14 7l3 3",
  trash: "M5 7h14M9 7V4h6v3m-8 0 1 13h8l1-13",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20 20",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
