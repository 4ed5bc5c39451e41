/** What the pages' scripts read and pass on; `entries.py` and `figures.py` write the same types as `TypedDict`. */

/** A class around a thing: its name, the relation with it alone, and what it adds to the score. */
export type Context = [name: string, alone: number | null, share: number | null];

export interface Thing {
  index: number;
  label: string;
  score: number;
  /** The most probable classes, each with its probability. */
  classes: [name: string, probability: number][];
  area: number;
  /** Left and top edge as shares of the photo. */
  box: [number, number] | null;
  relation: number | null;
  verdict: string | null;
  reason: string | null;
  colour: string;
  /** An SVG path in the units of `Entry.view`, as is `Entry.mask`. */
  outline: string;
  why: Context[];
}

export interface Entry {
  id: string;
  uri: string;
  cut: boolean;
  status: string | null;
  reason: string | null;
  error: string | null;
  shows: string[];
  size: [number | null, number | null];
  view: [number, number] | null;
  removed: number | null;
  mask: string;
  stuff: [label: string, confidence: number][];
  /** Data URIs. */
  before: string | null;
  after: string | null;
  note: string | null;
  more: number;
  objects: Thing[];
}

export interface Policy {
  cut: number | null;
  min_area: number;
  max_area: number;
  min_score: number;
}

/** A name with its count; null stands for all other names. */
export type Count = [name: string | null, count: number];

export type Histogram = Record<"unrelated" | "related" | "other", number[]>;

export interface Figures {
  images: number;
  status: Record<"cleaned" | "unchanged" | "scanned" | "skipped" | "error", number>;
  failures: Count[];
  things: number;
  gone: number;
  reasons: Count[];
  removed: Count[];
  area: number;
  histogram: Histogram;
}

export interface PageData {
  id: string;
  title: string;
  about: string[];
  blind: boolean;
  /** Null on a blind page. */
  policy: Policy | null;
  entries: Entry[];
  figures: Figures;
  people: [what: string, figure: string, interval: string][] | null;
}

export interface Rating {
  things: Record<number, string>;
  grade: number | null;
  /** Whether the rater has looked at the result. */
  seen: boolean;
}

export type Overlays = Record<"filled" | "outlines" | "names", boolean>;

/** Have one thing stand out in the picture, or none. */
export type Pick = (index: number | null) => void;

export type Child = Node | string | false | null | undefined | Child[];

export type Attributes = Record<string, unknown> & { vars?: Record<string, string | number> };

/** What a page makes of an entry. */
export interface Parts {
  filters: string[];
  /** What stands beside the picture. */
  aside(entry: Entry, pick: Pick, redraw: () => void): Child[];
  /** A mark in the grid. */
  badge?(entry: Entry): Child;
  isDone?(entry: Entry): boolean;
  /** The entry as it may be seen now. */
  visible?(entry: Entry): Entry;
  /** Keys of the page; true where one was used. */
  key?(event: KeyboardEvent, entry: Entry): boolean;
}
