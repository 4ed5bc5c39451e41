-- status: what became of the images, and how much of them was filled
SELECT status, count(*) AS images, sum(removed) AS removed, sum(removed * width * height) AS pixels
FROM images
GROUP BY ALL
ORDER BY images DESC;

-- failures: why images were skipped or failed
SELECT status, reason, error.stage AS stage, error.type AS type, count(*) AS images
FROM images
WHERE reason IS NOT NULL
GROUP BY ALL
ORDER BY images DESC;

-- classes: what was decided for the things of each class, and why
SELECT label, verdict, reason, count(*) AS things, sum(share) AS share, count(relation) AS scored, sum(relation) AS relation
FROM objects
GROUP BY ALL
ORDER BY things DESC;

-- relations: how sure: relation scores in steps of 0.02
SELECT greatest(0, least(floor(relation * 50), 49))::UTINYINT AS step, verdict, reason, count(*) AS things
FROM objects
WHERE relation IS NOT NULL
GROUP BY ALL
ORDER BY step;

-- removed: how much of an image is filled, in percent, rounded down
SELECT least(floor(removed * 100), 99)::UTINYINT AS percent, count(*) AS images
FROM images
WHERE removed > 0
GROUP BY ALL
ORDER BY percent;

-- removals: images from which a class was removed
SELECT label, count(DISTINCT uri) AS images
FROM objects
WHERE verdict = 'remove'
GROUP BY ALL
ORDER BY images DESC;

-- scenes: where: removed classes and the stuff of their images
SELECT gone.label AS label, stuff.label AS stuff, count(*) AS images
FROM (SELECT DISTINCT uri, label FROM objects WHERE verdict = 'remove') AS gone
JOIN stuff USING (uri)
GROUP BY ALL
ORDER BY images DESC;

-- large: the largest removals, as shares of the image
SELECT removed AS value, uri, image_id
FROM images
WHERE removed > 0
ORDER BY value DESC, image_id
LIMIT getvariable('top');

-- near: things whose relation lies next to the cut, as distances from it
SELECT relation - getvariable('cut') AS value, uri, images.image_id, object, label, verdict
FROM objects
JOIN images USING (uri)
WHERE relation BETWEEN getvariable('cut') - 0.05 AND getvariable('cut') + 0.05
  AND objects.reason IN ('related', 'unrelated')
ORDER BY abs(value), images.image_id, object
LIMIT getvariable('top');

-- many: the images with the most things
SELECT things AS value, uri, image_id
FROM images
WHERE things > 0
ORDER BY value DESC, image_id
LIMIT getvariable('top');
