CREATE VIEW images AS  -- one row an image
SELECT *, len(objects) AS things FROM read_parquet('cleaned/metadata/*.parquet');

CREATE VIEW objects AS  -- one row a thing; object: its place in the row; share: of the image
SELECT image_id, uri, object, thing.*, thing.area / (width::DOUBLE * height) AS share
FROM (
  SELECT image_id, uri, width, height, unnest(objects) AS thing, generate_subscripts(objects, 1) - 1 AS object
  FROM images
);

CREATE VIEW stuff AS  -- one row a stuff class of an image
SELECT image_id, uri, seen.* FROM (SELECT image_id, uri, unnest(stuff) AS seen FROM images);
