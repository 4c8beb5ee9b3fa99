# ruff: noqa: E501 - the case tables read better unwrapped
"""Forms of one mathematical answer, and their neighbours that must not pay."""

import pytest

from reward.score import score_local

# reference ~ answers that mean the same
EQUAL = r"""
12\pi ~ 12\pi\text{ cm}^2 ~ 12\pi cm^2 ~ 12π cm² ~ 12\pi\,\text{cm}^2 ~ 12\pi \text{ square units} ~ The area is $12\pi$ square cm. ~ 12 \pi ~ A = 12\pi ~ $12\pi$ cm$^2$ ~ 12\pi \approx 37.7 ~ S=12\pi平方厘米 ~ \pi\cdot 12 ~ 12\pi\ \mathrm{cm^2}
2\sqrt{3} ~ 2\sqrt{3} \approx 3.46 ~ \sqrt{12} ~ 2\sqrt{3} m ~ 2\sqrt{3}\text{ cm} ~ AB = 2\sqrt{3} ~ AB=2\sqrt{3}\approx3.464 ~ \sqrt{12}=2\sqrt{3} ~ 2√3 cm ~ \frac{6}{\sqrt{3}} ~ 2\sqrt{3}厘米 ~ 约2\sqrt{3}
5 ~ |AB|=5 ~ \angle 1 = 5 ~ S_{\triangle ABC}=5 ~ f(x)=5 ~ OA=OB=5 ~ f(2)=5 ~ x_1 = 5 ~ \overline{AB}=5 ~ AB = 5 cm ~ a+b=5 ~ m\angle A = 5 ~ **5** ~ **Answer:** 5 ~ **Answer: 5** ~ **Final Answer:** $5$ ~ Final Answer: \(5\) ~ ### 5 ~ 答案：5 ~ 答案是5 ~ 5。 ~ 【答案】5 ~ 所以答案为5。 ~ 5个 ~ 5 cm ~ 5厘米 ~ 共5人 ~ 5元 ~ x=５ ~ The answer is 5. ~ the final answer is $\boxed{5}$ ~ x = 5, because 2+3=5 ~ We add 2 and 3, so the answer is 5. ~ \underline{5} ~ \text{Area}=5 ~ The radius r = 5 ~ EF=GH=5 ~ \sqrt{25}=5 ~ 5\text{ units} ~ $x = 5$ ~ The value of $x$ is $5$ ~ 5.00 ~ \mathbf{5} ~ |5| ~ |-5| ~ 2x=10 \Rightarrow x=5 ~ \log_2 32 ~ \frac{10}{2}=5 ~ 解：x=5 ~ x的值为5 ~ P = 5 ~ d=5\text{ m} ~ n = 5 ~ \text{The answer is } 5 ~ \$5
\frac{1}{2} ~ 0.5 ~ 答案是 \frac{1}{2} ~ \frac{AB}{CD}=\frac{1}{2} ~ \sin A = \frac{1}{2} ~ \cos\theta = 0.5 ~ \tan \alpha = 1/2 ~ P(A) = \frac{1}{2} ~ AB:CD=1:2 ~ \frac{1}{2} \approx 0.5 ~ k=\frac12 ~ 50\% ~ \frac{AC}{BD}=\frac{1}{2} ~ 1/2 ~ \frac{2}{4} ~ \sin 30^\circ ~ P(X=2)=0.5 ~ \dfrac12 ~ \frac{\sqrt{2}}{2\sqrt{2}} ~ 2^{-1} ~ \frac{3}{6}=\frac{1}{2}
\frac{1}{3} ~ \frac{1}{3} \approx 0.333 ~ \frac13 \approx 0.33 ~ 0.\overline{3} ~ P=\frac{1}{3} ~ \approx 0.333333
50° ~ ∠1=50° ~ 50 ~ 50^\circ ~ 50度 ~ \angle ABC = 50^{\circ} ~ ∠ABC=50° ~ 50 degrees ~ \angle A = 50
3:4 ~ 3∶4 ~ 3：4 ~ 6:8 ~ \frac{3}{4} ~ AB:CD=3:4 ~ 3 : 4
1:2:3 ~ 2:4:6 ~ 1 : 2 : 3 ~ 1：2：3 ~ a:b:c=1:2:3
12345 ~ 12,\! 345 ~ 12,\!345 ~ 12{,}345 ~ 12,345 ~ 12\,345 ~ $12,345$
5000000 ~ 5 million ~ 5,000,000 ~ 5\times10^6 ~ 5\text{ million} ~ 5M ~ 500万
20000 ~ 20K ~ 20k ~ 20 thousand ~ 2万
24 ~ 2 dozen ~ 24 eggs
0.07 ~ 7 hundredths ~ 7\% ~ \frac{7}{100}
3, 5 ~ 3和5 ~ 3、5 ~ 3，5 ~ 5, 3 ~ \{3,5\} ~ {3,5} ~ 3 and 5 ~ x=3 or x=5 ~ x=3, x=5 ~ x_1=3, x_2=5 ~ 3或5 ~ 3; 5 ~ x = 3, 5 ~ x=3或x=5 ~ x_1=3，x_2=5 ~ \{5, 3\} ~ $3$ and $5$ ~ $x=3$ or $x=5$
AB=4, CD=5 ~ 4, 5 ~ CD=5, AB=4 ~ AB=4，CD=5 ~ AB = 4 and CD = 5
x=1, y=2 ~ y=2,x=1 ~ (1,2) ~ x=1，y=2 ~ x = 1 \text{ and } y = 2 ~ \begin{cases}x=1\\y=2\end{cases} ~ (x,y)=(1,2)
(1,2) ~ (1, 2) ~ \left(1, 2\right) ~ x=1,y=2 ~ （1，2） ~ (x,y)=(1,2) ~ 点(1,2) ~ (1.0, 2) ~ P(1,2)
\{1,2,3\} ~ {1,2,3} ~ 1,2,3 ~ \{3,2,1\} ~ A=\{1,2,3\} ~ \left\{1,2,3\right\} ~ 1, 2, and 3
(-\infty,-1)\cup(3,\infty) ~ x < -1 \text{ or } x > 3 ~ x<-1 or x>3 ~ (3,+\infty)\cup(-\infty,-1) ~ x<-1或x>3 ~ (-∞,-1)∪(3,+∞) ~ x > 3 \text{ or } x < -1 ~ x\in(-\infty,-1)\cup(3,\infty) ~ \{x \mid x<-1 \text{ or } x>3\} ~ \{x | x<-1 或 x>3\} ~ x<-1, x>3 ~ (-\infty, -1) \cup (3, +\infty)
x < -1 \text{ or } x > 3 ~ (-\infty,-1)\cup(3,\infty) ~ x>3 or x<-1
[1,3) ~ 1 \le x < 3 ~ 1≤x<3 ~ x \in [1,3) ~ \{x|1\le x<3\} ~ [1, 3) ~ 3 > x \ge 1 ~ x\ge 1 \text{ and } x<3
x \ne 2 ~ (-\infty,2)\cup(2,\infty) ~ x≠2 ~ \mathbb{R}\setminus\{2\} ~ x \neq 2
\mathbb{R} ~ x \in \mathbb{R} ~ (-\infty,\infty) ~ all real numbers ~ (-\infty, +\infty)
\begin{bmatrix}1&2\\3&4\end{bmatrix} ~ \left[\begin{array}{cc}1&2\\3&4\end{array}\right] ~ \left(\begin{array}{cc}1&2\\3&4\end{array}\right) ~ \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{bmatrix}1.0 & 2\\ 3& \frac{8}{2}\end{bmatrix} ~ A = \begin{bmatrix}1&2\\3&4\end{bmatrix} ~ \left[ \begin{array}{rr} 1 & 2 \\ 3 & 4 \end{array} \right]
3+4i ~ (2+i)^2 ~ 4i+3 ~ 3 + 4 i ~ z=3+4i ~ 3.0+4.0i
\frac{1-i}{2} ~ \frac{1}{1+i} ~ 0.5 - 0.5i ~ \frac{1}{2}-\frac{1}{2}i ~ \frac{1}{2} - \frac{i}{2}
2i ~ \sqrt{-4} ~ 2\cdot i
-2 ~ 2i^2
-1 ~ e^{i\pi} ~ i^2 ~ \cos \pi
x ~ 1.0x ~ \frac{2x}{2}
e^{x/2} ~ e^{0.5x} ~ \sqrt{e^x} ~ \exp(x/2)
2 ~ \log_3 9 ~ \log_{3} 9 ~ \log_3(9) ~ \lg 100 ~ \ln e^2 ~ \log_{10} 100 ~ \sqrt{4} ~ \sqrt[3]{8}
24 ~ \prod_{i=1}^{4} i ~ 4!
1 ~ \sum_{n=1}^{\infty} \frac{1}{2^n} ~ \sin^2 x + \cos^2 x ~ \int_0^1 2x dx ~ \lim_{x\to 0} \frac{\sin x}{x}
\sqrt{2g}\sqrt{h} ~ \sqrt{2gh} ~ \sqrt{2 g h} ~ v=\sqrt{2gh}
x^{2/3} ~ \sqrt[3]{x^2}
\sqrt{a}\sqrt{b} ~ (ab)^{1/2} ~ \sqrt{ab} ~ \sqrt{b a}
\frac{1}{\sqrt{n}} ~ \sqrt{1/n} ~ n^{-1/2} ~ \frac{\sqrt{n}}{n}
\frac{\sqrt{a}}{\sqrt{b}} ~ \sqrt{\frac{a}{b}} ~ \sqrt{a/b}
2\pi\sqrt{\frac{L}{g}} ~ T=2\pi\sqrt{L/g} ~ 2\pi \frac{\sqrt{L}}{\sqrt{g}}
x^{2.0} ~ x^2
8 m/s ~ 8 m·s⁻¹ ~ 8 ~ 8\ \mathrm{m/s} ~ 8\,\text{m/s} ~ v = 8 m/s ~ 8 m s^{-1} ~ 8米/秒
12\pi\text{ cm}^2 ~ 12\pi ~ 12\pi cm^2 ~ 12\pi
3a ~ 3a \text{ units} ~ 3*a ~ 3 a ~ a+2a
\frac{1}{2}mv^2 ~ \frac{mv^2}{2} ~ 0.5mv^2 ~ E=\frac{1}{2}mv^2 ~ E_k = \frac{1}{2} m v^2
F=ma ~ ma ~ F = m a ~ F=am
\ln 2 ~ \log_e 2 ~ \ln(2) ~ \ln{2}
\ln 6 ~ \ln 2+\ln 3 ~ \ln(2\cdot 3)
10^{10^{10}} ~ 10^{10^{10}} ~ $10^{10^{10}}$
2^{2024} ~ 2^{2024} ~ 2^2024
无解 ~ 无解 ~ 无解。
等腰三角形 ~ 等腰三角形 ~ 等腰三角形。 ~ 答案：等腰三角形
2x+3 ~ f(x)=2x+3 ~ y=2x+3 ~ 2x + 3 ~ 3+2x ~ $f(x) = 2x+3$ ~ y = 3 + 2x
y=2x+3 ~ f(x)=2x+3 ~ 2x+3 ~ 2x-y+3=0 ~ y-3=2x
x^2+y^2=4 ~ y^2+x^2=4 ~ x^2+y^2-4=0
(x-1)^2+(y+2)^2=9 ~ (y+2)^2+(x-1)^2=9 ~ (x-1)^2+(y+2)^2=3^2
-\frac{3}{4} ~ -0.75 ~ \frac{-3}{4} ~ \frac{3}{-4} ~ k=-\frac{3}{4} ~ −0.75
1.5 ~ \frac{3}{2} ~ 1\frac{1}{2} ~ 3/2 ~ 1½
\frac{\pi}{6} ~ 30^\circ ~ \theta = \frac{\pi}{6} ~ \pi/6 ~ 30°
\sin A = \frac{3}{5} ~ \frac{3}{5} ~ 0.6 ~ \sin A=0.6
x=5 ~ 5 ~ x = 5 ~ 5=x
a_n=2n+1 ~ 2n+1 ~ a_n = 2n + 1 ~ a_{n}=1+2n
\frac{x^2}{4}+\frac{y^2}{3}=1 ~ \frac{y^2}{3}+\frac{x^2}{4}=1 ~ 3x^2+4y^2=12
x(x+1) ~ x^2+x
(x+1)(x-1) ~ x^2-1
2^{n}-1 ~ 2^n - 1
\pm\sqrt{2} ~ \sqrt{2}, -\sqrt{2} ~ ±√2 ~ x=\pm\sqrt{2} ~ \{\sqrt{2},-\sqrt{2}\}
1\pm\sqrt{5} ~ 1+\sqrt{5}, 1-\sqrt{5} ~ x = 1 \pm \sqrt{5} ~ \{1-\sqrt{5}, 1+\sqrt{5}\}
\frac{-1\pm\sqrt{3}}{2} ~ \frac{-1+\sqrt{3}}{2}, \frac{-1-\sqrt{3}}{2}
1.2\times10^{-3} ~ 0.0012 ~ 1.2e-3 ~ 1.2 × 10⁻³ ~ 1.2 \cdot 10^{-3}
\emptyset ~ ∅ ~ \varnothing ~ \{\}
\{1,2,3\} ~ \{1,2\}\cup\{3\}
3^{1/8} ~ \sqrt{\sqrt{\sqrt{3}}}
[-1,1]\cup[2,3] ~ [2,3]\cup[-1,1] ~ -1\le x\le 1 \text{ or } 2\le x\le 3
[0,1]\cup\{2\} ~ 0\le x\le 1 \text{ or } x=2 ~ \{2\}\cup[0,1]
9\% ~ 0.09 ~ 9 percent
x = \frac{\pi}{4} + k\pi, k \in \mathbb{Z} ~ \frac{\pi}{4}+k\pi ~ x=k\pi+\frac{\pi}{4} ~ x = \frac{\pi}{4} + k\pi (k\in\mathbb{Z}) ~ x=\frac{\pi}{4}+k\pi, k∈Z
a=1,b=2,c=3 ~ (1,2,3) ~ c=3, b=2, a=1 ~ (a,b,c)=(1,2,3) ~ 1, 2, 3
10, 20 ~ 10 \text{ and } 20 ~ 10 and 20 ~ 20, 10
2+\sqrt{3}, 2-\sqrt{3} ~ 2\pm\sqrt{3} ~ $2+\sqrt{3}$ or $2-\sqrt{3}$ ~ x=2\pm\sqrt3 ~ x_1=2+\sqrt{3}, x_2=2-\sqrt{3}
x=1, y=2 ~ \left\{\begin{array}{l}x=1\\y=2\end{array}\right. ~ \begin{cases} x = 1, \\ y = 2. \end{cases}
1,234,567 ~ 1234567 ~ \boxed{1,234,567} ~ 1\,234\,567 ~ 1{,}234{,}567
\frac{3\sqrt{3}}{4} ~ \frac{3}{4}\sqrt{3} ~ 0.75\sqrt{3} ~ 3\sqrt{3}/4 ~ \frac{3\sqrt3}4
\frac{1}{3} ~ 0.333... ~ 0.\dot{3} ~ 0.\overline{3} ~ 0.3333\ldots ~ 0.\overline{33}
5\times10^{-3} ~ 5e-3 ~ 5.0e-3 ~ 0.005 ~ 5 \cdot 10^{-3}
\frac{1}{x} ~ x^{-1} ~ \frac1x ~ 1/x
-\infty ~ -∞ ~ - \infty
\frac{n(n+1)}{2} ~ n(n+1)/2 ~ \frac{1}{2}n(n+1) ~ \frac{n^2+n}{2} ~ 0.5n^2+0.5n ~ \binom{n+1}{2}
10 ~ \binom{5}{2} ~ C_5^2 ~ \mathrm{C}_5^2
e^{2x} ~ \exp(2x) ~ (e^x)^2
\frac{\pi}{4} ~ \arctan 1 ~ \tan^{-1} 1 ~ \tan^{-1}(1) ~ 45^\circ ~ \arctan(1)
(3,4) ~ \langle 3,4\rangle
3\mathbf{i}+4\mathbf{j} ~ 3\hat{i}+4\hat{j} ~ 3i+4j
72 km/h ~ 20 m/s ~ 72 ~ 72\text{ km/h} ~ 72千米/小时
1.5 h ~ 90 min ~ 1.5 hours ~ 1.5小时 ~ 1.5
2 L ~ 2000 mL ~ 2升 ~ 2 liters
\$1,234.56 ~ 1234.56 ~ $1,234.56 ~ 1234.56 dollars
x^3-6x^2+11x-6 ~ (x-1)(x-2)(x-3)
x+1 ~ \frac{x^2-1}{x-1}
2\sin x\cos x ~ \sin 2x ~ \sin(2x) ~ 2\sin(x)\cos(x) ~ 2 \cos x \sin x
\sin^2 x ~ 1-\cos^2 x ~ (\sin x)^2 ~ \sin^{2}x ~ \sin^2(x)
\log_2(xy) ~ \log_2 x+\log_2 y ~ \log_{2}{x}+\log_{2}{y}
\sqrt[3]{2} ~ 2^{1/3} ~ 2^{\frac13} ~ 2^{\frac{1}{3}} ~ ∛2
\pm 3 ~ x=\pm 3 ~ 3 or -3 ~ -3, 3 ~ x=3 \text{ or } x=-3 ~ ±3
A ~ (A) ~ A. ~ \text{A} ~ **A**
-3\frac{1}{2} ~ -3.5 ~ -\frac{7}{2}
10 m ~ 10 meters ~ 10 metres ~ 10米 ~ 1000 cm ~ 10\,\mathrm{m}
6\sqrt{2} ~ 6\sqrt2 ~ 6√2
\frac{\sqrt{2}}{2} ~ \frac{\sqrt2}2 ~ \sqrt{2}/2 ~ \frac{1}{\sqrt{2}} ~ √2/2
\frac{\pi}{2} ~ \frac\pi2 ~ π/2 ~ 0.5π
1, -2 ~ x_1=1, x_2=-2 ~ \{-2, 1\} ~ x=1或x=-2 ~ x₁=1, x₂=-2 ~ x_1=1,x_2=-2
(1,2),(3,4) ~ \{(1,2),(3,4)\} ~ (3,4),(1,2) ~ (1,2) and (3,4) ~ (1,2)和(3,4) ~ (1,2)、(3,4)
(\frac{1}{2},-3) ~ (0.5,-3) ~ \left(\frac{1}{2}, -3\right) ~ A(\frac{1}{2},-3) ~ (1/2, -3)
(-2,3) ~ -2<m<3 ~ m\in(-2,3) ~ −2<m<3
[0,+\infty) ~ k\geq 0 ~ k≥0 ~ [0,\infty) ~ x \ge 0
a<1且a≠0 ~ a<1 \text{ and } a\neq 0 ~ (-\infty,0)\cup(0,1) ~ a<1 and a≠0
x>2 ~ \{x|x>2\} ~ {x|x>2} ~ \{x \in \mathbb{R} : x > 2\} ~ (2,\infty) ~ x∈(2,+∞) ~ \{x\mid x>2\}
\mathbb{R}\setminus\{2\} ~ \{x\in\mathbb{R}\mid x\neq 2\} ~ x≠2
\frac{2}{3} ~ \frac{2}{3}\text{ cup} ~ 2/3 ~ \frac{2}{3} \text{ hours} ~ .\overline{6} ~ 0.666666667
\text{Yes} ~ Yes ~ yes. ~ **Yes**
\text{even} ~ even ~ Even. ~ \textbf{even}
y=\frac{1}{3}x-2 ~ \frac{1}{3}x-2 ~ y = \frac{x}{3} - 2 ~ y=\frac{x-6}{3} ~ x-3y=6 ~ x - 3y - 6 = 0
y=x^2-4x+3 ~ y=(x-1)(x-3) ~ y=(x-2)^2-1 ~ x^2-4x+3
x^2+y^2-2x=0 ~ (x-1)^2+y^2=1 ~ x^2-2x+y^2=0
3x+4y-5=0 ~ 3x+4y=5 ~ 6x+8y-10=0 ~ -3x-4y+5=0
y^2=4x ~ y^{2}=4x ~ 4x=y^2
x=2 ~ x=2.0 ~ 2 ~ x = \frac{4}{2}
x<3 ~ (-\infty,3) ~ 3>x ~ x < 3.0
\frac{a+b}{2} ~ (a+b)/2 ~ 0.5(a+b) ~ \frac{a}{2}+\frac{b}{2} ~ \frac12(a+b)
2\vec{a}+\vec{b} ~ \vec{b}+2\vec{a}
|x-1| ~ |1-x| ~ \left|x-1\right|
\triangle ABC ~ \triangle ABC ~ ABC
8\text{ square units} ~ 8 ~ 8 \text{ units}^2 ~ 8 sq units
100^\circ ~ 100 ~ 100° ~ 100\text{ degrees} ~ 100^{\circ} ~ 100度
12.5\% ~ 0.125 ~ \frac{1}{8} ~ 12.5 ~ 12.5 \%
60\text{ mph} ~ 60 ~ 60 mph
1{:}2 ~ 1:2 ~ \frac{1}{2} ~ 1 \text{ to } 2 ~ 1 : 2
2^{10}\cdot 3 ~ 3072 ~ 3 \cdot 2^{10}
7! ~ 5040
\frac{5}{36} ~ \frac{5}{36} \approx 0.139 ~ \frac{5}{36} \approx 13.9\%
0.25 ~ 1/4 ~ .25 ~ 25\% ~ \frac14
-1 ~ i^2 ~ -1.0 ~ −1
1-i ~ 1 - i ~ -i+1 ~ \frac{2}{1+i}
\cos 20^\circ ~ \sin 70^\circ ~ \cos(20^\circ) ~ \cos20°
\frac{\sqrt{6}+\sqrt{2}}{4} ~ \sin 75^\circ ~ \frac{\sqrt{2}+\sqrt{6}}{4} ~ \frac{\sqrt{6}}{4}+\frac{\sqrt{2}}{4}
4x^2-9 ~ (2x+3)(2x-3) ~ 4x²-9
a^{m+n} ~ a^m a^n ~ a^m\cdot a^n
\ln\frac{a}{b} ~ \ln a-\ln b ~ \ln(a/b)
\frac{\ln 3}{\ln 2} ~ \log_2 3 ~ \log_{2}{3}
4\pi r^2 ~ 4\pi r^{2} ~ S=4\pi r^2 ~ 4πr²
\frac{GMm}{r^2} ~ F=\frac{GMm}{r^2} ~ G\frac{Mm}{r^2} ~ \frac{G M m}{r^2}
\sqrt{x^2+y^2} ~ \sqrt{y^2+x^2} ~ (x^2+y^2)^{1/2}
x \geq -1 ~ [-1,\infty) ~ x>=-1 ~ -1\le x
5\sqrt{3}+5 ~ 5(\sqrt{3}+1) ~ 5+5\sqrt{3} ~ 5+5√3
8\sqrt{3}-\frac{8\pi}{3} ~ \frac{24\sqrt{3}-8\pi}{3}
10\text{:}30 ~ 10:30
""".strip().splitlines()

# reference ~ answers that must not pay
DIFFERENT = r"""
1:2:3 ~ 2:3:4 ~ 1:3:2 ~ \frac{1}{6} ~ 1:6 ~ 1:2 ~ 3:2:1 ~ 1,2,3 ~ 6
\frac{1}{6} ~ 1:2:3 ~ 6 ~ 1:5
5 ~ 5 million ~ 5 dozen ~ 5万 ~ 5 thousand ~ 5K ~ |AB|=6 ~ a+b=6 ~ not 5 ~ The answer is not 5 ~ x=5, y=6 ~ x \ne 5 ~ x<5 ~ 至少5 ~ 5 or 6 ~ 5或6 ~ 5和6 ~ 5:1:1 ~ AB=5, CD=6 ~ 5 \approx 6 ~ 6 \approx 5 ~ 3x=5 ~ x+1=5=6 ~ 5\pi ~ 5\sqrt{2} ~ \frac{5}{\pi} ~ 5i ~ 5x ~ 5+x ~ [5,6] ~ \{5,6\} ~ The answer is 6. ~ 5. The answer is 6 ~ 2+2=5 ~ 答案：6 ~ 不是5 ~ 5倍 ~ x=-5 ~ 5.5 ~ between 5 and 6 ~ 5 - 6 ~ 5^{\circ}30'
1.5 ~ 1.5 billion ~ 1.5万 ~ 15 ~ 1\frac{1}{3} ~ 1,5
7 ~ 7 hundredths ~ 7\times 10 ~ 7 tenths
5000000 ~ 5 ~ 5 billion ~ 5 thousand
100.005 ~ \sqrt{10001} ~ 100.0049 ~ 100
3.14 ~ \pi ~ 3.1416
12\pi ~ 12 ~ 12\pi^2 ~ 37.7 ~ 12\pi \approx 36 ~ 11\pi ~ 12\pi r ~ 2\pi
12\pi\text{ cm}^2 ~ 12\pi\text{ cm} ~ 12\pi\text{ m}^2 ~ 6\pi\text{ cm}^2 ~ 12\pi cm^3 ~ 12\text{ cm}^2
2\sqrt{3} ~ 3.46 ~ 2\sqrt{3} \approx 3.5 0 ~ \sqrt{6} ~ 3\sqrt{2} ~ 2\sqrt{3} \approx 4.46 ~ 2\sqrt{2} \approx 3.46
\frac{1}{3} ~ 0.33 ~ 0.333 ~ \approx 0.333 ~ \frac{1}{3}=0.5 ~ 1:2 ~ 3
\sin A = \frac{3}{5} ~ \cos A = \frac{3}{5} ~ \frac{4}{5} ~ \sin B = \frac{3}{5}
AB=4, CD=5 ~ 5, 4 ~ AB=5, CD=4 ~ 4 ~ AB=4 ~ 4,5,6
3, 5 ~ 3 ~ 5 ~ 3, 6 ~ 3.5 ~ 3,5,7 ~ 35 ~ (3,5,5) ~ 3和6 ~ 8
x=1, y=2 ~ 2,1 ~ x=2, y=1 ~ x=1, z=2 ~ (2,1)
(-\infty,-1)\cup(3,\infty) ~ -1<x<3 ~ x<-1 ~ x>3 ~ (-1,3) ~ x \le -1 or x \ge 3 ~ (-\infty,-1]\cup(3,\infty) ~ x<-1 and x>3 ~ x<3 or x>-1 ~ (-\infty,-1)\cup(4,\infty) ~ x>-1 or x<3
[1,3) ~ (1,3) ~ [1,3] ~ 1<x<3 ~ 1 \le x \le 3 ~ x \ge 1 ~ 1,3 ~ x<3
x \ne 2 ~ x=2 ~ x>2 ~ x \ne 3 ~ 2 ~ y \ne 2
\mathbb{R} ~ \mathbb{Z} ~ (0,\infty) ~ x>0 ~ \mathbb{R}\setminus\{0\} ~ \mathbb{Q} ~ 0
\{1,2,3\} ~ {1,2} ~ {1,2,4} ~ (1,2,3) ~ 1:2:3 ~ 123 ~ 6
\begin{bmatrix}1&2\\3&4\end{bmatrix} ~ \left[\begin{array}{cc}1&2\\3&5\end{array}\right] ~ \left[\begin{array}{cc}1&3\\2&4\end{array}\right] ~ \begin{vmatrix}1&2\\3&4\end{vmatrix} ~ -2 ~ \begin{bmatrix}1&2\end{bmatrix} ~ \begin{bmatrix}1&2\\3&4\\5&6\end{bmatrix}
3+4i ~ 3-4i ~ 5 ~ 4+3i ~ (2-i)^2 ~ 7i ~ 3+4
\sqrt{2gh} ~ \sqrt{gh} ~ 2gh ~ \sqrt{2g}h ~ \sqrt{2}gh ~ \sqrt{2gH}
\sqrt{a}\sqrt{b} ~ \sqrt{a+b} ~ ab ~ \sqrt{a}+\sqrt{b} ~ \sqrt{\frac{a}{b}}
x ~ |x| ~ \sqrt{x^2} ~ 1.01x ~ -x ~ X ~ x^2 ~ y ~ 2x
x^{2/3} ~ x^{3/2} ~ \sqrt{x^3} ~ x^{0.67} ~ x^{0.666667}
2 ~ \log_2 8 ~ \log_9 3 ~ \lg 10 ~ 2i ~ 2e ~ \sqrt{8}
1 ~ \sum_{n=0}^{\infty} \frac{1}{2^n} ~ e^{i\pi} ~ i ~ \sum_{n=1}^{3} \frac{1}{2^n}
10^{10^{10}} ~ 10^{10^{11}} ~ 10^{10} ~ 0 ~ 1 ~ 10^{100}
2^{2024} ~ 2^{2025} ~ 2^{20}24 ~ 2024^2 ~ 4^{2024}
等腰三角形 ~ 直角三角形 ~ 等腰 ~ 不是等腰三角形
无解 ~ 有解 ~ 0 ~ 2
y=2x+3 ~ y=2x-3 ~ y=3x+2 ~ 3 ~ x=2y+3 ~ 2x+y+3=0
x^2+y^2=4 ~ 4 ~ x^2+y^2=2 ~ x^2-y^2=4 ~ x^2+y^2 ~ x^2+y^2=16
\frac{\pi}{6} ~ 60^\circ ~ 6 ~ \frac{6}{\pi} ~ 30 ~ 0.52
8 m/s ~ 8 m ~ 8 km/h ~ 8 s/m ~ 9 m/s ~ 8 m/s^2
50° ~ 60° ~ ∠1=40° ~ \angle 1 = \angle 2 ~ 50 cm
\pm\sqrt{2} ~ \sqrt{2} ~ -\sqrt{2} ~ \pm 2 ~ 2
1\pm\sqrt{5} ~ 1+\sqrt{5} ~ 1-\sqrt{5} ~ -1\pm\sqrt{5} ~ \sqrt{5}
12345 ~ 12,345,000 ~ 12.345 ~ 12, 345 ~ 12345.1
F=ma ~ F=mb ~ m+a ~ F/a ~ F=m/a
\{1,2,3\} ~ \{1,2\}\cup\{4\}
[-1,1]\cup[2,3] ~ [-1,3] ~ [-1,1]\cup[2,4] ~ (-1,1)\cup(2,3)
x = \frac{\pi}{4} + k\pi, k \in \mathbb{Z} ~ x = \frac{\pi}{4} + 2k\pi, k \in \mathbb{Z} ~ x = \frac{\pi}{3} + k\pi ~ \frac{\pi}{4}
a=1,b=2,c=3 ~ (1,3,2) ~ a=1,b=2 ~ a=2,b=1,c=3 ~ 3,2,1
2+\sqrt{3}, 2-\sqrt{3} ~ 2+\sqrt{3} ~ 2\pm\sqrt{2} ~ 4 ~ 1
\frac{1}{3} ~ 0.3 ~ 0.33... 4 ~ 0.34 ~ 0.\dot{4} ~ 0.3333
\frac{n(n+1)}{2} ~ \frac{n(n-1)}{2} ~ n(n+1) ~ \frac{n^2+1}{2} ~ \frac{m(m+1)}{2}
72 km/h ~ 72 m/s ~ 20 km/h ~ 72 km ~ 7.2 km/h
1.5 h ~ 1.5 min ~ 15 h ~ 150 min
x+1 ~ \frac{x^2+1}{x-1} ~ x-1 ~ y+1
2\sin x\cos x ~ \sin x ~ \cos 2x ~ 2\sin x ~ \sin 2y
\pm 3 ~ 3 ~ -3 ~ 3, 3 ~ \pm\sqrt{3} ~ 9
A ~ B ~ a ~ AB ~ A, B ~ A or B ~ not A
10 m ~ 10 cm ~ 10 km ~ 1 m ~ 10 s ~ 10 m^2
1, -2 ~ -1, 2 ~ 1 ~ 1, 2 ~ x_1=1, x_2=2
(1,2),(3,4) ~ (1,2) ~ (1,3),(2,4) ~ (2,1),(4,3) ~ (1,2,3,4) ~ 1,2,3,4
(-2,3) ~ [-2,3] ~ -2\le m<3 ~ (3,-2) ~ -3<m<2 ~ m>-2
[0,+\infty) ~ (0,+\infty) ~ k>0 ~ k\le 0 ~ 0
a<1且a≠0 ~ a<1 ~ a≠0 ~ (-\infty,0)\cup(0,1] ~ (0,1) ~ a>1且a≠0
x>2 ~ x\ge 2 ~ \{x|x<2\} ~ \{2\} ~ x>2 or x<0 ~ x=2
y=x^2-4x+3 ~ y=x^2-4x ~ y=x^2+4x+3 ~ y=(x-1)(x+3) ~ x=y^2-4y+3
3x+4y-5=0 ~ 3x+4y+5=0 ~ 4x+3y-5=0 ~ 3x-4y-5=0 ~ 3x+4y-5
y^2=4x ~ x^2=4y ~ y^2=2x ~ y=4x ~ y^2=-4x
\frac{a+b}{2} ~ \frac{a-b}{2} ~ a+b ~ \frac{a+c}{2} ~ \sqrt{ab} ~ \frac{A+B}{2}
|x-1| ~ x-1 ~ |x+1| ~ 1-x
12.5\% ~ 1.25\% ~ 0.0125 ~ 125 ~ 12.5 cm
\frac{5}{36} ~ 0.139 ~ \frac{5}{36} \approx 0.15 ~ \frac{5}{35}
1-i ~ 1+i ~ i-1 ~ 1 ~ \frac{2}{1-i}
\cos 20^\circ ~ \cos 70^\circ ~ \sin 20^\circ ~ \cos 20
4\pi r^2 ~ 4\pi r ~ 4\pi R^2 ~ 2\pi r^2 ~ \frac{4}{3}\pi r^3 ~ 4\pi^2 r^2
\ln\frac{a}{b} ~ \ln\frac{b}{a} ~ \frac{\ln a}{\ln b} ~ \log\frac{a}{b} ~ \ln ab
\text{Yes} ~ No ~ not yes ~ yes or no
\text{even} ~ odd ~ not even ~ uneven ~ even or odd
\sqrt{x^2+y^2} ~ x+y ~ \sqrt{x^2-y^2} ~ \sqrt{x+y}
2\vec{a}+\vec{b} ~ 2\vec{a}-\vec{b} ~ \vec{a}+2\vec{b}
100 ~ 100.01 ~ 10^3 ~ 99.9999999 ~ 100 or 101 ~ 1e3 ~ 1 00
0.5 ~ 0.05 ~ 0.50001 ~ 5 ~ 2 ~ 1:3 ~ .05
5\sqrt{3}+5 ~ 10\sqrt{3} ~ 5\sqrt{3} ~ 13.66 ~ 5\sqrt{3}-5
\angle ABC ~ \triangle ABC ~ \angle ACB ~ \angle A
\overrightarrow{AB} ~ \overrightarrow{BA} ~ \overrightarrow{AC}
(1,2) ~ x=1 \text{ or } x=2 ~ x_1=1, x_2=2
\{1,2\} ~ x=1, y=2
""".strip().splitlines()


def cases(lines):
    for line in lines:
        reference, *answers = (piece.strip() for piece in line.split(" ~ "))
        for answer in answers:
            yield pytest.param(reference, answer, id=f"{reference} ~ {answer}"[:60])


def judge(reference, answer):
    return score_local(f"<answer>{answer}</answer>", reference, "math-expressions").parts["accuracy"]


@pytest.mark.parametrize(("reference", "answer"), cases(EQUAL))
def test_equal(reference, answer):
    assert judge(reference, answer) == 1.0


@pytest.mark.parametrize(("reference", "answer"), cases(DIFFERENT))
def test_different(reference, answer):
    assert judge(reference, answer) == 0.0
