"""Those who follow the history from its beginning come to the labels of today: what it lacks so far is added."""

from django.db import migrations

# Of before labels had a history.
LABELS = """INSERT INTO labelling_labelevent
    (generation_id, annotator_id, oracle, liked, score, cause, created_at)
SELECT l.generation_id, l.annotator_id, l.oracle, l.liked, l.score, '', l.created_at FROM labelling_label l
WHERE NOT EXISTS (
    SELECT 1 FROM labelling_labelevent e WHERE e.generation_id = l.generation_id AND e.oracle = l.oracle
    AND COALESCE(e.annotator_id, 0) = COALESCE(l.annotator_id, 0)
) ORDER BY l.id"""
SCORES = """UPDATE labelling_labelevent SET score = l.score FROM labelling_label l
WHERE l.score IS NOT NULL AND l.generation_id = labelling_labelevent.generation_id
AND l.oracle = labelling_labelevent.oracle AND l.liked = labelling_labelevent.liked"""
WORDS = """INSERT INTO labelling_labelevent
    (generation_id, annotator_id, oracle, liked, score, cause, created_at)
SELECT o.generation_id, o.reviewer_id, '', o.liked, NULL, 'overruled', o.created_at FROM quality_overrule o ORDER BY o.id"""
FLAGGED = """INSERT INTO labelling_labelevent
    (generation_id, annotator_id, oracle, liked, score, cause, created_at)
SELECT l.generation_id, l.annotator_id, l.oracle, NULL, NULL, 'flagged', CURRENT_TIMESTAMP FROM labelling_label l
JOIN labelling_generation i ON i.id = l.generation_id JOIN labelling_group g ON g.id = i.group_id
WHERE g.state = 'flagged' ORDER BY l.id"""


class Migration(migrations.Migration):
    dependencies = [("labelling", "0007_history_that_can_be_followed"), ("quality", "0007_quarter_counts")]
    operations = [migrations.RunSQL(sql, migrations.RunSQL.noop) for sql in (LABELS, SCORES, WORDS, FLAGGED)]
