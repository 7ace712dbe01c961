# Generation of every type against what reading its weights allows: gnuplot -e "csv='docs/types.csv'" docs/types.gp
#
# csv: quoll bench --membw -o csv, one row per type. A generated token reads read_gb_s / avg_ts gigabytes, so the
# bandwidth divided by that is as fast as it can get; of its measurements the best one counts.
set datafile separator ','
set terminal svg size 960,420 font 'sans-serif,12' background 'white'
set output 'docs/types.svg'
set style data histograms
set style histogram clustered gap 0.4
set style fill solid 0.85 noborder
set boxwidth 0.8
set xtics rotate by -45 scale 0 noenhanced
set grid ytics lc rgb '#dddddd'
set ylabel 'generated tokens/s'
set yrange [0:*]
set key top left reverse Left
# One row per test: generation is where n_gen is not 0. The type is the last word of model_type.
set datafile columnheaders
type(s) = word(s, words(s))
stats csv using (column('membw_gb_s')) nooutput
plot csv using (column('n_gen') > 0 ? column('avg_ts') : 1/0):xtic(type(strcol('model_type'))) \
        title 'measured' lc rgb '#2a6f97', \
     '' using 0:(STATS_max * column('avg_ts') / column('read_gb_s')) with points pt 9 ps 0.9 \
        lc rgb '#d1495b' title 'read bandwidth / bytes per token'
